"""Which `socketserver` servers run on a number; the rest of who polls it is the core's to tell."""

from __future__ import annotations

import sys
from typing import Any

from probate.system import number_of


def servers_in(number: int) -> list[Any]:
    """The `socketserver` servers whose `serve_forever` runs, on any thread, on this number."""
    return [server for server in serving() if number_of(server) == number]


def serving() -> list[Any]:
    """All `socketserver` servers whose `serve_forever` runs."""
    module = sys.modules.get("socketserver")
    return [] if module is None else running(module.BaseServer.serve_forever)


def running(method: Any) -> list[Any]:
    """The objects of which a method runs on any thread, as the interpreter's frames tell."""
    found = []
    for top in sys._current_frames().values():  # noqa: SLF001  documented
        frame = top
        while frame is not None:
            if frame.f_code is method.__code__:
                found.append(frame.f_locals.get("self"))
            frame = frame.f_back  # type: ignore[assignment]  # None at the end
    return found
