"""The story of the demo: five processes come to their end in four ways."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import shutil
import sys
import threading
from typing import TYPE_CHECKING, NamedTuple, final

from probate.cli.demo import scenes, workers
from probate.cli.demo.host import DemoError, Host
from probate.cli.demo.report import DemoReport, EndedProcess, KernelReport
from probate.cli.demo.timing import CleanupTimes
from probate.errors import ProbateError, describe_error
from probate.testing import KernelView

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from probate import Process, ResourceOrchestrator

    Tell = Callable[[str], None]


@final
class _Ended(NamedTuple):
    """A process that has come to its end, and what it held before."""

    process: Process
    ended_by: str
    end: str
    scenes: dict[str, list[str]]
    held: dict[str, int]


def run(orchestrator: ResourceOrchestrator, *, progress: bool = True) -> DemoReport:
    """Run the demo; with `progress`, and at a terminal, standard error shows how far it is.

    Raises DemoError where it cannot go on: not enough of something here, or a wrong answer.
    """
    if not orchestrator.registered_types():
        return DemoReport(plugins=tuple(orchestrator.records))
    with _logged() as logged, _telling(progress) as tell:
        try:
            return _run(orchestrator, tell, logged)
        except (OSError, MemoryError, RuntimeError, ProbateError) as error:
            reason = describe_error(error)
        # Not from `error`, so that what is half made is gone, and has complained, by now.
        raise DemoError(f"the demo cannot go on here: {reason}")


def _run(orchestrator: ResourceOrchestrator, tell: Tell, logged: list[str]) -> DemoReport:
    tell("every kind is used once, before the kernel is asked")
    with Host(orchestrator) as host:
        # What an interpreter sets up for good is there then.
        scenes.set_up(host, host.manager.create_process("warm-up"))
    gc.collect()
    before = KernelView.take()
    times = CleanupTimes(orchestrator.plugin_manager)
    with Host(orchestrator) as host:
        ended = [_end_normally(host, tell), _end_by_exception(host, tell)]
        ended += _end_together(host, tell)
        differences: list[str] = []
        if host.has(*workers.KINDS):
            try:
                last, differences = _end_by_a_kill(host, tell)
                ended.append(last)
            except Exception as error:
                if not scenes.is_lack(error):
                    raise
                host.remarks.append(f"not here: workers: {describe_error(error)}")
        differences += host.wrong_files()
    times.stop()
    tell("the kernel is asked again")
    gc.collect()
    return DemoReport(
        plugins=tuple(orchestrator.records),
        processes=tuple(_report(each, times, list(orchestrator)) for each in ended),
        remarks=(*host.remarks, *logged),
        totals=host.manager.totals,
        kernel=KernelReport(
            fds=len(before.fds),
            sockets=len(before.sockets),
            shared_maps=before.shared_maps.total(),
            threads=len(before.threads),
            files=len(host.expected_files),
            differences=(*before.changes(), *differences),
        ),
    )


def _end_normally(host: Host, tell: Tell) -> _Ended:
    with host.manager.process("normal") as process:
        held = _set_up(host, process, tell)
        tell("'normal' ends normally")
    return _Ended(process, "return", "ends normally", *held)


def _end_by_exception(host: Host, tell: Tell) -> _Ended:
    crashed: list[_Ended] = []
    with contextlib.suppress(ZeroDivisionError), host.manager.process("crashed") as process:
        held = _set_up(host, process, tell)
        crashed.append(_Ended(process, "exception", "ends by an exception", *held))
        tell("'crashed' ends by an exception")
        raise ZeroDivisionError("a bug in the job")
    return crashed[0]


def _end_together(host: Host, tell: Tell) -> list[_Ended]:
    twins = [host.manager.create_process(name) for name in ("twin-1", "twin-2")]
    held = [_set_up(host, process, tell) for process in twins]
    tell("'twin-1' and 'twin-2' end, both at once")
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
    return [
        _Ended(process, "terminate", "ends, both at once", *each)
        for process, each in zip(twins, held, strict=True)
    ]


def _end_by_a_kill(host: Host, tell: Tell) -> tuple[_Ended, list[str]]:
    tell("'workers' work, and are killed from outside")
    tree = workers.run(host)
    end = (
        "is killed by another program: noticed and settled unasked, "
        f"{tree.seconds:.2f} s after that program was started; "
        f"exit status {tree.process.returncode}"
    )
    return _Ended(tree.process, "SIGKILL", end, tree.scenes, tree.held), tree.differences


def _set_up(
    host: Host, process: Process, tell: Tell
) -> tuple[dict[str, list[str]], dict[str, int]]:
    tell(f"{process.name!r} takes resources of every kind")
    done = scenes.set_up(host, process)
    return done, {kind: usage.count for kind, usage in process.usage().items()}


def _report(ended: _Ended, times: CleanupTimes, kinds: list[str]) -> EndedProcess:
    process, held = ended.process, ended.held
    return EndedProcess(
        pid=process.pid,
        name=process.name,
        ended_by=ended.ended_by,
        end=ended.end,
        returncode=process.returncode,
        scenes=ended.scenes,
        kinds={kind: times.report(process.pid, kind, held.get(kind, 0)) for kind in kinds},
        result=process.terminate(),
    )


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
