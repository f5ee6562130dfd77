"""The story of the demo: five processes come to their end in four ways."""

from __future__ import annotations

import contextlib
import gc
import logging
import threading
from typing import TYPE_CHECKING

from probate.cli.demo import report, scenes, workers
from probate.cli.demo.host import Host
from probate.cli.demo.timing import CleanupTimes
from probate.cli.output import console
from probate.testing.witness import KernelView

if TYPE_CHECKING:
    from rich.console import Console

    from probate.models import CleanupResult
    from probate.orchestrator import ResourceOrchestrator
    from probate.process.process import Process


def run(orchestrator: ResourceOrchestrator) -> int:
    """Run the demo; return the exit code: 0 if all came free and the kernel agrees, else 1."""
    out = console()
    kinds = orchestrator.registered_types()
    out.print(f"kinds, in cleanup order: {', '.join(kinds) or 'none installed'}", markup=False)
    for record in orchestrator.records:
        if record.status != "loaded":
            out.print(f"not loaded: {record.kind} ({record.reason})", markup=False)
    if not kinds:
        out.print("there is nothing to demonstrate: pip install 'probate[all]'", markup=False)
        return 1
    # The leaks of the process that ends normally are the point here, and shown as a count.
    logging.getLogger("probate").setLevel(logging.ERROR)

    _warm_up(orchestrator)
    before = KernelView.take()
    times = CleanupTimes(orchestrator.plugin_manager)
    with Host(orchestrator) as host:
        ended = [_end_normally(out, host), _end_by_exception(out, host), *_end_at_once(out, host)]
        survivors: list[str] = []
        if host.has(*workers.KINDS):
            process, result, survivors = workers.run(out, host)
            ended.append((process, result))
        for process, result in ended:
            report.print_result(out, process.name, result, kinds, times)
        wrong_files = _wrong_files(host)
        paths = [*host.folder.glob("*.sock"), *host.folder.glob("*.fifo")]
        left_paths = [f"path left behind: {path}" for path in paths]
        sockets, maps = len(before.sockets), before.shared_maps.total()
    times.stop()
    gc.collect()
    differences = [*before.changes(), *wrong_files, *left_paths, *survivors]
    report.print_verdict(
        out,
        differences,
        f"{len(before.fds)} fds ({sockets} sockets), {maps} shared maps, "
        f"{len(before.threads)} threads, all signal dispositions; "
        f"{len(host.expected_files)} files as written",
    )
    totals = host.manager.totals
    out.print(
        f"{len(ended)} processes: {totals.resources_freed} resources, {totals.bytes_freed} bytes",
        markup=False,
    )
    return int(bool(differences) or not all(result.is_success for _, result in ended))


def _end_normally(out: Console, host: Host) -> tuple[Process, CleanupResult]:
    with host.manager.process("normal") as process:
        _set_up(out, host, process)
    return _ended(out, process, "ends normally")


def _end_by_exception(out: Console, host: Host) -> tuple[Process, CleanupResult]:
    crashed: list[Process] = []
    with contextlib.suppress(ZeroDivisionError), host.manager.process("crashed") as process:
        crashed.append(process)
        _set_up(out, host, process)
        raise ZeroDivisionError("a bug in the job")
    return _ended(out, crashed[0], "ends by an exception")


def _end_at_once(out: Console, host: Host) -> list[tuple[Process, CleanupResult]]:
    twins = [host.manager.create_process(name) for name in ("twin-1", "twin-2")]
    for process in twins:
        _set_up(out, host, process)
    start_together = threading.Barrier(len(twins))

    def terminate(process: Process) -> None:
        start_together.wait()
        process.terminate()

    threads = [threading.Thread(target=terminate, args=(process,)) for process in twins]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [_ended(out, process, "ends, both at once") for process in twins]


def _set_up(out: Console, host: Host, process: Process) -> None:
    out.print(f"\nprocess {process.pid} {process.name!r} holds", markup=False)
    for line in scenes.set_up(host, process):
        out.print(f"  - {line}", markup=False)
    counts = [f"{kind} {usage.count}" for kind, usage in process.usage().items()]
    out.print(f"  in all: {', '.join(counts)}", markup=False)


def _ended(out: Console, process: Process, how: str) -> tuple[Process, CleanupResult]:
    result = process.terminate()
    seconds = result.stats.duration_seconds
    out.print(f"process {process.pid} {how}: settled in {seconds:.2f} s", markup=False)
    return process, result


def _warm_up(orchestrator: ResourceOrchestrator) -> None:
    """Use every kind once, so that what an interpreter sets up for good is there before we look."""
    with Host(orchestrator) as host:
        process = host.manager.create_process("warm-up")
        scenes.set_up(host, process)
        process.terminate()
    gc.collect()


def _wrong_files(host: Host) -> list[str]:
    return [
        f"not as written: {path}"
        for path, content in host.expected_files.items()
        if path.read_bytes() != content
    ]
