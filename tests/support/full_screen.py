"""A program that takes the whole screen (curses(3)), and says its size and pid; q ends it."""

from __future__ import annotations

import curses
import os


def main(screen: curses.window) -> None:
    while True:
        rows, columns = screen.getmaxyx()
        # All of it, and not what has changed, so that whoever reads finds it.
        screen.clear()
        screen.addstr(0, 0, f"{rows}x{columns} looking {os.getpid()}<")
        screen.refresh()
        if screen.getch() == ord("q"):
            return


if __name__ == "__main__":
    curses.wrapper(main)
