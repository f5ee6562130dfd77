"""Notice: what the kernel says of a program that is about to make something by a name."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Self, final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from probate.models import ResourceRecord

#: What a notice is called in a row of the journal.
NOTICE: Final = "notice"

#: In the identity of a temporary folder: the names of the folders that were made in it by the same
#: tree, as far as they are few. A name of its own that others know is shared: /tmp/pytest-of-USER.
FOLDERS: Final = "folders"


@final
class Notice(NamedTuple):
    """Tells of one system call of a program that is supervised, for `noticed` of any kind.

    The call was let through when the name was free: whoever made it made the thing. It is noted
    before, and looked at again after: then `state` is "confirmed", and the identity has what tells
    the thing from any later one of its name, as `path_identity` and `sysv_named` have it.

        call                        of what                                  name
        `open`                      of a temporary folder or /dev/shm, with  path
                                    O_EXCL; or of /dev/shm, new
        `mkdir`                     of a temporary folder or /dev/shm        path
        `mknod`                     a FIFO                                   path
        `link`                      a second name of a file                  path
        `bind`                      of a unix socket, to a path              path
        `mq_open`                   a POSIX queue                            with its slash
        `shmget` `semget` `msgget`  a System V object, made for the program  key, in hexadecimal
        `setsid`                    an OS process has left its session       nothing
        `exec`                      an OS process has been started           command
    """

    call: str
    #: The OS process that calls.
    os_pid: int
    #: A path is absolute, and without links.
    name: str
    #: What it is found by: JSON values.
    identity: Mapping[str, Any]
    #: Of what is opened or made by a key: the flags of the call.
    flags: int = 0
    #: Whether it is right in a folder for temporary files.
    is_temporary: bool = False
    state: Literal["intent", "confirmed"] = "intent"

    @property
    def folder(self) -> str:
        """The folder of a path."""
        return os.path.dirname(self.name)  # noqa: PTH120  a string

    @property
    def basename(self) -> str:
        """The last part of a path."""
        return os.path.basename(self.name)  # noqa: PTH119  as above

    def record(self, kind: str, description: str, *, holds_data: bool = False) -> ResourceRecord:
        """Return the record of what it tells of, for the kind whose it is.

        `holds_data` says that it may be what the program was run for: it is removed only if that
        did not end by itself.
        """
        from probate.models import ResourceRecord

        return ResourceRecord(
            kind=kind,
            description=description,
            os_pid=self.os_pid,
            identity=self.identity,
            state=self.state,
            evidence="notified",
            holds_data=holds_data,
        )

    def to_row(self, owner: int, at: float) -> dict[str, Any]:
        """Return what stands of it in the journal."""
        return {
            "owner": owner,
            "at": at,
            "state": self.state,
            "identity": self.identity,
            NOTICE: [self.call, self.os_pid, self.name, self.flags, self.is_temporary],
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Read what `to_row` has written. Raises LookupError, TypeError, ValueError."""
        call, os_pid, name, flags, is_temporary = row[NOTICE]
        return cls(call, os_pid, name, row["identity"], flags, is_temporary, row["state"])
