"""Who else has a socket open.

shutdown(2) acts on the open file description, which a dup, a child or whoever was sent it shares
(socket(7), unix(7)).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from probate.system.numbers import links_of, listed, path_of

if TYPE_CHECKING:
    from collections.abc import Collection


def sharers_of(number: int) -> str:
    """Say who else has a socket open: this process by another number, or another process.

    Empty if nobody has. Processes that we may not look into (proc(5)) are taken for strangers.
    """
    return all_sharers_of([number]).get(number, "")


def all_sharers_of(numbers: Collection[int]) -> dict[int, str]:
    """As `sharers_of`, of those that anybody else has open: one look for all, at all processes."""
    if not numbers:
        return {}
    links = {path_of(number): number for number in numbers}
    found: dict[int, str] = {}
    if not listed("/proc/self/fd"):
        # No descriptor is left to look with (EMFILE).
        return dict.fromkeys(numbers, "it cannot be told who else has it open")
    for other, link in links_of("self"):
        number = links.get(link)
        if number is not None and other != str(number):
            found[number] = f"this process has it open as number {other}, too"
    own = str(os.getpid())
    for process in listed("/proc"):
        if process.isdigit() and process != own:
            for _, link in links_of(process):
                if link in links:
                    found.setdefault(links[link], f"process {process} has it open, too")
    return found
