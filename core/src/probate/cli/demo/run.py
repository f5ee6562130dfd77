"""The story of the demo: five processes come to their end in four ways."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import shutil
import sys
import threading
import traceback
from typing import TYPE_CHECKING

from probate.cli.demo import aftermath, scenes, workers
from probate.cli.demo.host import DemoError, Host
from probate.cli.demo.mortal import KINDS
from probate.cli.demo.report import DemoReport, KernelReport
from probate.cli.lack import is_lack, lack_of, with_mend
from probate.errors import describe_error
from probate.testing import KernelView

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from probate import Process, ResourceOrchestrator
    from probate.cli.demo.report import DeadHost, EndedProcess

    Tell = Callable[[str], None]


def run(orchestrator: ResourceOrchestrator, *, progress: bool = True) -> DemoReport:
    """Run the demo; with `progress`, and at a terminal, standard error shows how far it is.

    Raises DemoError where it cannot go on: not enough of something here, or what should not be.
    """
    if not orchestrator.registered_types():
        return DemoReport(plugins=tuple(orchestrator.records))
    with _logged() as logged, _telling(progress) as tell:
        failure: BaseException
        try:
            return _run(orchestrator, tell, logged)
        except DemoError as error:
            failure = DemoError(f"the demo cannot go on here: {error}", error.where)
        except Exception as error:
            # Where memory or descriptors are short, any may come of it.
            where = "" if is_lack(error) else traceback.format_exc()
            failure = DemoError(f"the demo cannot go on here: {with_mend(error)}", where)
        except KeyboardInterrupt:
            failure = KeyboardInterrupt()
        # Another one, so that what is half made is gone, and has complained, by now.
        raise failure


def _run(orchestrator: ResourceOrchestrator, tell: Tell, logged: list[str]) -> DemoReport:
    tell("every kind is used once, before the kernel is asked")
    with Host(orchestrator, tell) as host:
        # What an interpreter sets up for good is there then.
        scenes.set_up(host, host.manager.create_process("warm-up"))
    gc.collect()
    before = KernelView.take()
    with Host(orchestrator, tell) as host:
        ended = [_end_normally(host), _end_by_exception(host), *_end_together(host)]
        if host.has(*workers.KINDS):
            tell("'workers' work, and are killed from outside")
            try:
                ended.append(workers.run(host))
            except Exception as error:
                if not is_lack(error):
                    raise
                host.note_lack("workers", "all", lack_of(error))
        dead_hosts = _kill_hosts(host)
        differences = [
            *host.differences,
            *(each for dead in dead_hosts for each in dead.differences),
            *host.wrong_files(),
        ]
    tell("the kernel is asked again")
    gc.collect()
    return DemoReport(
        plugins=tuple(orchestrator.records),
        processes=tuple(ended),
        remarks=(*host.remarks(), *logged),
        is_complete=host.is_complete,
        totals=host.manager.totals,
        dead_hosts=tuple(dead_hosts),
        kernel=KernelReport(
            fds=len(before.fds),
            sockets=len(before.sockets),
            shared_maps=before.shared_maps.total(),
            threads=len(before.threads),
            files=len(host.expected_files),
            differences=(*before.changes(), *differences),
        ),
    )


def _kill_hosts(host: Host) -> list[DeadHost]:
    if not host.has_any(*KINDS):
        return []
    try:
        return aftermath.run(host)
    except Exception as error:
        if not is_lack(error):
            raise
        host.note_lack("killed hosts", "all", lack_of(error))
        return []


def _end_normally(host: Host) -> EndedProcess:
    with host.manager.process("normal") as process:
        scenes.set_up(host, process)
        host.tell("'normal' ends normally")
    return host.report(process, "return", "ends normally")


def _end_by_exception(host: Host) -> EndedProcess:
    crashed: list[Process] = []
    with contextlib.suppress(ZeroDivisionError), host.manager.process("crashed") as process:
        crashed.append(process)
        scenes.set_up(host, process)
        host.tell("'crashed' ends by an exception")
        raise ZeroDivisionError("a bug in the job")
    return host.report(crashed[0], "exception", "ends by an exception")


def _end_together(host: Host) -> list[EndedProcess]:
    twins = [host.manager.create_process(name) for name in ("twin-1", "twin-2")]
    for process in twins:
        scenes.set_up(host, process)
    host.tell("'twin-1' and 'twin-2' end, both at once")
    go = threading.Event()

    def terminate(process: Process) -> None:
        go.wait()
        process.terminate()

    threads = [threading.Thread(target=terminate, args=(process,)) for process in twins]
    try:
        for thread in threads:
            thread.start()
    finally:
        # Whatever comes in between: none of them waits for ever.
        go.set()
    for thread in threads:
        thread.join()
    return [host.report(process, "terminate", "ends, both at once") for process in twins]


@contextlib.contextmanager
def _logged() -> Iterator[list[str]]:
    """Give a list that takes what is logged meanwhile, or ignored, in the place of standard error.

    Warnings are not: the leaks of the process that ends normally are the point here.
    """
    lines: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            error = record.exc_info[1] if record.exc_info else None
            why = f": {describe_error(error)}" if error else ""
            lines.append(f"logged: {record.getMessage()}{why}")

    logger = logging.getLogger("probate")
    handler = Handler(logging.ERROR)
    logger.addHandler(handler)
    logger.propagate = False
    hook = sys.unraisablehook
    sys.unraisablehook = lambda ignored: lines.append(f"ignored: {ignored.exc_value!r}")
    try:
        yield lines
    finally:
        sys.unraisablehook = hook
        logger.propagate = True
        logger.removeHandler(handler)


@contextlib.contextmanager
def _telling(wanted: bool) -> Iterator[Tell]:
    """Give a function that shows a line in the place of the one before; in the end there is none.

    Without a thread, which the kernel would show as well.
    """
    is_shown = wanted and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    def tell(text: str) -> None:
        if is_shown:
            line = f"demo: {text} ..."[: shutil.get_terminal_size().columns - 1] if text else ""
            sys.stderr.write(f"\r\x1b[K{line}")
            sys.stderr.flush()

    try:
        yield tell
    finally:
        tell("")
