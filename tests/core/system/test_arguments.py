"""checked_int: the one check for ints, which takes any integer type and no bool."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from probate.system import checked_int


class Index:
    """An integer to operator.index, and to nothing else."""

    def __index__(self) -> int:
        return 7


class Broken:
    def __index__(self) -> int:
        raise ZeroDivisionError


@pytest.mark.parametrize("value", [7, np.int64(7), np.uint8(7), Index()])
def test_integers_of_all_types_become_ints(value: object) -> None:
    """A plain int comes out, whatever went in."""
    number = checked_int("n", value, least=7, most=7)

    assert type(number) is int
    assert number == 7


@pytest.mark.parametrize(
    "value",
    [True, False, np.True_, None, 7.0, np.float64(7), Decimal(7), "7", b"7", [7], int, Index],
)
def test_what_is_no_integer_is_a_type_error_that_names_both(value: Any) -> None:
    """Name and value are in the message; a bool is no number here, and nothing is rounded."""
    with pytest.raises(TypeError) as caught:
        checked_int("a size", value)

    assert str(caught.value) == f"a size must be an int, got {value!r}"
    assert caught.value.__suppress_context__


def test_what_an_index_itself_raises_is_raised() -> None:
    """It is no TypeError of the caller's."""
    with pytest.raises(ZeroDivisionError):
        checked_int("n", Broken())


@pytest.mark.parametrize(
    ("value", "least", "most", "bounds"),
    [
        (0, 1, None, "at least 1"),
        (-1, 0, None, "at least 0"),
        (9, None, 8, "at most 8"),
        (0, 1, 8, "1 to 8"),
        (9, 1, 8, "1 to 8"),
        (np.int8(-128), 0, 8, "0 to 8"),
        (1 << 70, 0, 1 << 64, f"0 to {1 << 64}"),
    ],
)
def test_what_is_out_of_range_is_a_value_error_that_tells_the_range(
    value: object, least: int | None, most: int | None, bounds: str
) -> None:
    """Both bounds if there are two, the one if there is one."""
    with pytest.raises(ValueError, match=r"^n must be ") as caught:
        checked_int("n", value, least=least, most=most)

    assert str(caught.value) == f"n must be {bounds}, got {value!r}"


@pytest.mark.parametrize("value", [-5, 0, 5])
def test_the_bounds_themselves_are_in_range(value: int) -> None:
    """A range of one number has that number; without bounds all numbers are in it."""
    assert checked_int("n", value, least=value, most=value) == value
    assert checked_int("n", value) == value
