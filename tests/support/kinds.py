"""The kinds of this repository, as the design lists them: priority by kind, in cleanup order."""

from __future__ import annotations

PRIORITIES = {
    "processes": 100,
    "scheduler": 90,
    "callbacks": 60,
    "mmap": 50,
    "tasks": 40,
    "rings": 30,
    "signals": 20,
    "sockets": 10,
    "files": 8,
    "ipc": 5,
    "memory": 0,
}
KINDS = list(PRIORITIES)
