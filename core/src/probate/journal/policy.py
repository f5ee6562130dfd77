"""What may be given back on which evidence, of what a command has made that knows nothing of us.

Nothing is removed for its name, for having appeared meanwhile, or because somebody holds it. What
is noticed as it is made is the command's; whether it is the same still, and in use, its kind sees
when it is to be reclaimed.
"""

from __future__ import annotations

from typing import Final

#: By what it is known that a thing was made by whom it is said to have been.
_CERTAIN: Final = ("made", "notified")


def reason_to_leave(evidence: str, *, holds_data: bool, ended_normally: bool, settle: str) -> str:
    """Say why a thing is left where it is; nothing if it may be removed.

    `evidence` is that of its `ResourceRecord`; `holds_data` says that it may be what the command
    was run for, as a temporary file is whose name was handed on; `settle` is "crash", "all" or
    "report".
    """
    if evidence not in _CERTAIN:
        return f"nobody saw who made it (evidence: {evidence})"
    if settle == "report":
        return "only reported: --settle report"
    if holds_data and ended_normally and settle != "all":
        return "the command ended by itself, and may have handed it on: --settle all removes it"
    return ""


def is_of_tree(
    *,
    is_pinned: bool = False,
    descends: bool = False,
    has_tag: bool = False,
    has_nonce: bool = False,
    is_filtered: bool = False,
    has_run_filter: bool = False,
    is_orphan: bool = False,
    is_front_alone: bool = False,
) -> bool:
    """Tell whether an OS process is of a run's tree, and may be ended.

    It was pinned as it stood in a call that the run's filter has noticed, descends from one that is
    of the tree, or bears the tag of the run; or it came as an orphan, under that filter, to a front
    that has no other children, whatever it has shed (sudo, which sets limits and environment anew).
    The nonce in its environment counts only with a filter of system calls, if the run has one; or
    else, if it came to the front as an orphan: the environment alone may have been carried to a
    stranger (sbatch, at).
    """
    if is_pinned or descends or has_tag:
        return True
    if has_run_filter and is_filtered and is_orphan and is_front_alone:
        return True
    return has_nonce and (is_filtered if has_run_filter else is_orphan)
