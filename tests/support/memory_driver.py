"""How to make, adopt, release and break memory: for tests over all kinds."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import sysv_ipc
from drivers import Driver

from probate_memory import UntrackedSharedMemory

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate import ResourceOrchestrator

SIZE = 4096


def drivers(orchestrator: ResourceOrchestrator) -> dict[str, Driver]:
    """Drivers by name: what acquires, and what adopts where possible."""
    memory = orchestrator["memory"].manager

    def adopting(make: Callable[[], Any], close: Callable[[Any], None]) -> Callable[[int], Any]:
        def make_and_adopt(pid: int) -> Any:
            native = make()
            try:
                orchestrator.adopt(pid, native)
            except BaseException:
                close(native)
                raise
            return native

        return make_and_adopt

    def made_elsewhere() -> Any:
        # Untracked, since a tracker that starts in the midst of a test is an OS process more.
        return UntrackedSharedMemory(f"test-{secrets.token_hex(8)}", create=True, size=SIZE)

    def close_shared(native: Any) -> None:
        native.close()
        native.unlink()

    def close_segment(native: Any) -> None:
        native.detach()
        native.remove()

    return {
        "allocation": Driver("memory", lambda pid: memory.allocate(pid, SIZE), memory.free),
        "shared memory": Driver(
            "memory",
            lambda pid: memory.create_shared_memory(pid, size=SIZE, wipe=True),
            memory.close,
            close_shared,
        ),
        "adopted shared memory": Driver(
            "memory", adopting(made_elsewhere, close_shared), memory.close, close_shared
        ),
        "segment": Driver(
            "memory", lambda pid: memory.create_segment(pid, SIZE), memory.close, close_segment
        ),
        "adopted segment": Driver(
            "memory",
            adopting(
                lambda: sysv_ipc.SharedMemory(None, sysv_ipc.IPC_CREX, size=SIZE), close_segment
            ),
            memory.close,
            close_segment,
        ),
    }
