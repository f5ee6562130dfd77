"""Finding leaks: what a job did not give back, and where it was acquired.

python examples/leaks.py
"""

from __future__ import annotations

import logging

from probate import ProcessManager


def careless(manager: ProcessManager) -> None:
    """Bind two sockets and give back one."""
    sockets = manager.orchestrator["sockets"].manager
    sockets.close(sockets.bind_udp(("127.0.0.1", 0)))
    sockets.bind_udp(("127.0.0.1", 0))


def main() -> None:
    """Run the job; print its leaks."""
    logging.getLogger("probate").setLevel(logging.ERROR)
    with ProcessManager.builder().with_acquisition_sites().build() as manager:
        with manager.process("careless") as process:
            careless(manager)
        result = process.terminate()
        print(result)
        for leak in result.leaks:
            print(leak)


if __name__ == "__main__":
    main()
