"""What is the same for all kinds of things with names: who gives them back, whoever has died.

An `Estate` is a kind and the lines of a program that make its things; each of its methods is one
death, from the first line of the program to the last trace of it.
"""

from __future__ import annotations

import json
import os
import select
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, final

from journal_hosts import PATIENCE, JournalHost, kill_all, reaper_of, wait_until_gone

from probate import ResourceOrchestrator
from probate.settlement import HostState, read_accounts, sweep

if TYPE_CHECKING:
    from probate.settlement import HostAccount, RowAccount

#: Makes the things of `process` in `folder`, says where they are, and waits.
_HOLDS: Final = """
import json
from pathlib import Path

folder = Path(sys.argv[2])
with build() as manager:
    kind = manager.orchestrator[{kind!r}].manager
    process = {process}
    paths = []
{makes}
    say(json.dumps([getattr(process, "os_pid", None), [str(path) for path in paths]]))
    sys.stdin.readline()
say("closed")
sys.stdin.read()
"""


@final
class Estate(NamedTuple):
    """Things of one kind: lines that append to `paths` what they make of `process` by `kind`."""

    kind: str
    makes: str

    def host(self, folder: Path, *, process: str = "manager.create_process('worker')") -> Held:
        """Start a host that holds them, in a new folder below this one."""
        (folder / "things").mkdir(exist_ok=True)
        makes = textwrap.indent(textwrap.dedent(self.makes), "    ")
        source = _HOLDS.format(kind=self.kind, makes=makes, process=process)
        host = JournalHost(source, folder / "state", str(folder / "things"))
        worker, paths = json.loads(host.line())
        held = Held(host, self.kind, [Path(each) for each in paths], worker)
        assert all(map(os.path.lexists, held.paths))
        return held

    def goes_with_a_killed_worker(self, folder: Path) -> None:
        """The host, which lives on, gives it back; it leaves no row."""
        with self.host(folder, process="manager.spawn(['sleep', '1000'])") as held:
            assert held.worker is not None
            kill_all(held.worker)

            wait_until_gone(*held.paths)
            assert held.host.process.poll() is None
            reaper = held.reaper()
            held.say_go_on()
            assert held.host.line() == "closed"
            held.await_end(reaper)
            assert list(held.state.iterdir()) == []

    def goes_with_a_killed_host(self, folder: Path) -> None:
        """The reaper gives it back, and says so."""
        with self.host(folder) as held:
            reaper = held.reaper()
            held.host.kill()

            wait_until_gone(*held.paths)
            held.await_end(reaper)
            (account,) = read_accounts(str(held.state))
            assert {str(row.outcome) for row in account.rows} == {"released"}
            assert {row.kind for row in account.rows} == {self.kind}
            assert len(account.rows) == len(held.paths)
            for path in held.paths:
                assert [row for row in account.rows if str(path) in row.description] != []
            assert list((folder / "things").iterdir()) == []

    def goes_with_host_and_reaper(self, folder: Path) -> None:
        """A sweep gives it back; a dry run says the same, and touches nothing."""
        with self.host(folder) as held:
            assert [each.state for each in held.swept()] == [HostState.ALIVE]
            held.kill_both()

            (tried,) = held.swept(dry_run=True)
            assert all(map(os.path.lexists, held.paths))
            (account,) = held.swept()
            assert [str(row.outcome) for row in account.rows] == ["released"] * len(held.paths)
            assert tried.rows == account.rows
            assert not any(map(os.path.lexists, held.paths))
            assert held.swept() == []

    def leaves_no_row_in_time(self, folder: Path) -> None:
        """A host that gives back all has neither store nor reaper."""
        with self.host(folder) as held:
            reaper = held.reaper()
            held.say_go_on()

            assert held.host.line() == "closed"
            assert not any(map(os.path.lexists, held.paths))
            held.await_end(reaper)
            assert list(held.state.iterdir()) == []

    def takes_no_store(self, folder: Path) -> None:
        """What the kernel takes back by itself is not noted, and needs no reaper."""
        with self.host(folder) as held:
            assert not held.state.exists()


@final
class Held(NamedTuple):
    """A host that holds things, and where they are."""

    host: JournalHost
    kind: str
    paths: list[Path]
    #: The OS process that owns them, if there is one.
    worker: int | None

    @property
    def state(self) -> Path:
        """Where its store is."""
        return self.host.state

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        self.host.__exit__(*_)

    def say_go_on(self) -> None:
        """Have it close its manager."""
        assert self.host.process.stdin is not None
        self.host.process.stdin.write("\n")
        self.host.process.stdin.flush()

    def reaper(self) -> int:
        """A pidfd of its reaper."""
        return os.pidfd_open(reaper_of(self.host.process.pid))

    def await_end(self, reaper: int) -> None:
        """Wait until a reaper, and what it became, has ended."""
        assert select.select([reaper], [], [], PATIENCE)[0]
        os.close(reaper)

    def kill_both(self) -> None:
        """SIGKILL to the reaper and the host."""
        kill_all(reaper_of(self.host.process.pid), self.host.process.pid)
        self.host.kill()

    def swept(self, *, dry_run: bool = False) -> list[HostAccount]:
        """What a sweep says."""
        orchestrator = ResourceOrchestrator().discover(only=[self.kind])
        return sweep(orchestrator, str(self.state), dry_run=dry_run)

    def row(self) -> RowAccount:
        """What a sweep says of the one thing that there is."""
        (account,) = self.swept()
        (row,) = account.rows
        return row
