"""Record a real termination, hook by hook, and draw it.

    python docs/programs/termination.py docs/explanation/termination.svg

An agent ends that has a child, a task, a socket, and a memory map in which something else has an
object that lies on it. Who is called when is what pluggy's monitoring saw: there are no times in
the picture, so that each run draws the same. Its colours are those of the text around it, in light
and dark; the two others are seen on both.
"""

from __future__ import annotations

import asyncio
import ctypes
import sys
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from probate import ProcessManager
from probate_ipc import IpcResource
from probate_mmap import MappingResource
from probate_sockets import SocketResource
from probate_tasks import TaskResource

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FREED: Final = "#2f9e44"
BUSY: Final = "#e8590c"

#: Sizes, in the units of the picture.
ROW, LANE, LEFT, TOP = 34, 128, 210, 44


class Call(NamedTuple):
    """One call of a hook."""

    pid: int
    hook: str
    kinds: tuple[str, ...]
    said: str


def recorded() -> list[Call]:
    """End a process that has a child; return the calls of hooks, in their order."""
    return asyncio.run(_record())


async def _record() -> list[Call]:
    calls: list[Call] = []

    def before(_hook: str, _methods: Any, _arguments: Any) -> None: ...

    def after(outcome: Any, hook: str, methods: Any, arguments: Mapping[str, Any]) -> None:
        kinds = tuple(method.plugin_name for method in reversed(methods))
        if hook in {"quiesce", "cleanup", "has_resources"}:
            said = _said(hook, outcome.get_result())
            calls.append(Call(arguments["pid"], hook, kinds, said))

    async with ProcessManager.builder().with_grace(20).build() as manager:
        orchestrator = manager.orchestrator
        agent = manager.create_process("agent")
        child = manager.create_process("child", parent=agent)
        orchestrator[SocketResource].manager.bind_udp(child.pid, ("127.0.0.1", 0))
        orchestrator[SocketResource].manager.bind_udp(agent.pid, ("127.0.0.1", 0))
        orchestrator[TaskResource].manager.spawn(agent.pid, asyncio.sleep(3600))
        mapped = orchestrator[MappingResource].manager.map_anonymous(agent.pid, 4096)
        # What lies on the map is somebody's who is asked later: it is in a queue.
        queue = orchestrator[IpcResource].manager.queue(agent.pid, maxsize=1)
        queue.put((ctypes.c_char * 16).from_buffer(mapped))
        undo = orchestrator.plugin_manager.add_hookcall_monitoring(before, after)
        await manager.terminate_process_async(agent.pid)
        undo()
    return calls


def _said(hook: str, results: list[Any]) -> str:
    if hook == "cleanup":
        [stats] = results
        return "busy" if stats.errors_encountered else "freed"
    if hook == "quiesce":
        waited = any(not isinstance(each, list) or each for each in results)
        return "wait" if waited else "asked"
    return "has_resources: some" if any(results) else "has_resources: none"


def drawn(calls: list[Call]) -> str:
    """Draw the calls, a row each, in the lane of the kind that is called."""
    lanes = _order(calls)
    width = LEFT + LANE * len(lanes) + 12
    rows = list(_rows(calls))
    height = TOP + ROW * len(rows) + 16
    label = "The hook calls of one termination, from first to last"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"',
        f'aria-label="{label}" font-family="system-ui, sans-serif" font-size="13"',
        'fill="currentColor">',
    ]
    for number, kind in enumerate(lanes):
        x = LEFT + LANE * number + LANE / 2
        parts.append(f'<text x="{x:g}" y="20" text-anchor="middle" font-weight="600">{kind}</text>')
        parts.append(
            f'<path d="M{x:g} 30V{height - 8}" stroke="currentColor" stroke-opacity=".25"/>'
        )
    for number, (phase, call) in enumerate(rows):
        y = TOP + ROW * number
        if phase:
            parts.append(f'<text x="4" y="{y + 17}">{escape(phase)}</text>')
            parts.append(
                f'<path d="M4 {y - 4}H{width - 8}" stroke="currentColor" stroke-opacity=".25" '
                'stroke-dasharray="2 4"/>'
            )
        if call is not None:
            parts += _boxes(call, lanes, y)
    return "\n".join([*parts, "</svg>", ""])


def _boxes(call: Call, lanes: list[str], y: int) -> Iterator[str]:
    """The box of a call; one over all lanes where all kinds are asked at once."""
    if call.hook == "has_resources":
        x, width, colour = LEFT + 8, LANE * len(lanes) - 16, "currentColor"
    else:
        x, width = LEFT + LANE * lanes.index(call.kinds[0]) + 6, LANE - 12
        colour = {"busy": BUSY, "asked": "currentColor", "wait": "currentColor"}.get(
            call.said, FREED
        )
    shape = f'<rect x="{x}" y="{y}" width="{width}" height="26" rx="5"'
    yield f'{shape} style="fill:var(--color-background-primary, Canvas)"/>'
    yield f'{shape} stroke="{colour}" fill="{colour}" fill-opacity=".12"/>'
    label = call.said if call.hook == "has_resources" else f"{call.hook}: {call.said}"
    middle = x + width / 2
    yield f'<text x="{middle:g}" y="{y + 17}" font-size="12" text-anchor="middle">{label}</text>'


def _order(calls: list[Call]) -> list[str]:
    """The kinds that are called, in the order of cleanup."""
    used = {call.kinds[0] for call in calls if call.hook != "has_resources"}
    everything = next(call.kinds for call in calls if call.hook == "has_resources")
    return [kind for kind in everything if kind in used]


def _rows(calls: list[Call]) -> Iterator[tuple[str, Call | None]]:
    """Each call with the step that begins with it, if one does."""
    child = calls[0].pid
    cleaned: set[tuple[int, str]] = set()
    step = ""
    for call in calls:
        whose = "the child" if call.pid == child else "the agent"
        name = f"quiesce, {whose}"
        if call.hook == "cleanup":
            if not cleaned:
                yield "grace: until all have stopped", None
            is_retry = (call.pid, call.kinds[0]) in cleaned
            name = f"{'try again' if is_retry else 'cleanup'}, {whose}"
            cleaned.add((call.pid, call.kinds[0]))
        elif call.hook == "has_resources" and cleaned:
            name = f"verify, {whose}"
        yield (name if name != step else ""), call
        step = name


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(drawn(recorded()))
