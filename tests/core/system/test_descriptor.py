"""A number is closed once, and only while it is the file that was taken, and nobody else's."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest
from files_kernel import is_open

from probate import Outcome
from probate.system import OwnedDescriptor

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def null() -> Iterator[int]:
    """A number that the same file may get again: /dev/null."""
    number = os.open(os.devnull, os.O_RDONLY)
    yield number
    if is_open(number):
        os.close(number)


def test_it_is_closed_once(null: int) -> None:
    """The next to open the very same file, with the same number, keeps it."""
    descriptor = OwnedDescriptor(null)

    assert descriptor.close() is Outcome.RELEASED
    assert os.open(os.devnull, os.O_RDONLY) == null
    assert not descriptor.is_ours
    assert descriptor.close() is Outcome.ALREADY_GONE
    assert is_open(null)


def test_what_is_forgotten_is_never_touched(null: int) -> None:
    """Its number was given out anew, though to the same file."""
    descriptor = OwnedDescriptor(null)
    descriptor.forget()

    assert not descriptor.is_open
    assert descriptor.close() is Outcome.ALREADY_GONE
    assert is_open(null)


def test_an_object_that_has_let_go_of_a_number_decides(null: int) -> None:
    """A file that its user has closed: the next with the number may have opened the same."""
    with open(null, "rb", closefd=False) as file:
        descriptor = OwnedDescriptor(null, file.fileno)
        was_ours = descriptor.is_ours

    assert was_ours
    assert not descriptor.is_ours
    assert descriptor.is_open
    assert descriptor.close() is Outcome.ALREADY_GONE
    assert is_open(null)


def test_a_stranger_with_the_number_is_left_alone(null: int) -> None:
    """Told by device and inode, whatever it is."""
    descriptor = OwnedDescriptor(null)
    ours, theirs = socket.socketpair()
    os.dup2(ours.fileno(), null, inheritable=False)

    assert not descriptor.is_open
    assert descriptor.close() is Outcome.ALREADY_GONE
    assert is_open(null)
    ours.close()
    theirs.close()


def test_what_is_not_open_cannot_be_owned(null: int) -> None:
    """EBADF, as the kernel has it."""
    os.close(null)
    with pytest.raises(OSError, match="Bad file descriptor"):
        OwnedDescriptor(null)
