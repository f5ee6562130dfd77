"""A program: tells which signals come to it, one by one, until the last of them, SIGRTMAX.

Argument: the file to write them to, a name a line; standard output if there is none.
"""

from __future__ import annotations

import os
import signal
import sys


def main() -> None:
    everything = signal.valid_signals() - {signal.SIGTTOU}
    signal.pthread_sigmask(signal.SIG_BLOCK, everything)
    with open(sys.argv[1], "w") if sys.argv[1:] else sys.stdout as file:
        print("looking", os.getpid(), flush=True)
        while (number := signal.sigwaitinfo(everything).si_signo) != signal.SIGRTMAX:
            # A signal in the place of another of its number would not be seen.
            print(signal.Signals(number).name, file=file, flush=True)
        print("over", file=file, flush=True)


if __name__ == "__main__":
    main()
