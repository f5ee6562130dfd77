"""Work for another user, with that user's rights: for root.

What a user's rows tell of is the user's word. So it is not root who removes it, but a child that
has become that user: the kernel itself refuses then what the user could not have done.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from probate.settlement.apart import call_apart

if TYPE_CHECKING:
    import pwd
    from collections.abc import Callable

#: Seconds that such a child gets, which its user may stop.
_ALLOWANCE: Final = 600.0


def call_as(user: pwd.struct_passwd, work: Callable[[], object]) -> Any:
    """Call `work` in a child that has become a user; return what it returns, by way of JSON.

    Raises as `call_apart` does, and if nobody but root may become that user.
    """
    # What a child imports late may be where only root may read.
    import lmdb  # noqa: F401  as above

    def become_and_work() -> object:
        become(user)
        return work()

    return call_apart(become_and_work, _ALLOWANCE)


def become(user: pwd.struct_passwd) -> None:
    """Become a user, for good, in all that the kernel goes by: ids, groups, capabilities.

    The environment is that of a login. Raises OSError.
    """
    os.chdir("/")
    os.umask(0o077)
    os.initgroups(user.pw_name, user.pw_gid)
    os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
    os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    if user.pw_uid and (left := _capabilities()):
        raise PermissionError(f"root's capabilities would stay: {left:#x}")
    os.environ.clear()
    os.environ.update(HOME=user.pw_dir, USER=user.pw_name, LOGNAME=user.pw_name, PATH=os.defpath)


def _capabilities() -> int:
    """Return those that this process has, or may take (capabilities(7))."""
    status = Path("/proc/self/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines())
    return int(fields["CapPrm"], 16) | int(fields["CapEff"], 16)
