"""What really runs behind a future that only stands in front of another.

`run_in_executor` and `wrap_future` put an asyncio future in front of an executor's,
`run_coroutine_threadsafe` puts a future for threads in front of a task. The one in front can be
cancelled, and is done then, while what is behind it goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from probate_tasks.status import is_native

if TYPE_CHECKING:
    from collections.abc import Iterable

    from probate_tasks.status import Native


def behind(future: Native) -> Native:
    """The future that is not done before the work is: the last one of a chain."""
    while (source := _source_of(future)) is not None:
        future = source
    return future


def _source_of(future: Native) -> Native | None:
    """What asyncio has chained `future` to; None if it stands for itself.

    asyncio ties the two by callbacks and tells nobody, so those callbacks are all there is to
    see. Where they cannot be seen, a future is taken at its word.
    """
    for callback in _callbacks(future):
        if getattr(callback, "__qualname__", "").startswith("_chain_future."):
            cells = dict(zip(callback.__code__.co_freevars, callback.__closure__, strict=True))
            source = cells["source"].cell_contents if "source" in cells else None
            if is_native(source) and source is not future:
                return source
    return None


def _callbacks(future: Native) -> Iterable[Any]:
    for_loops = getattr(future, "_callbacks", None)
    if for_loops is not None:
        return [callback for callback, _ in for_loops]
    return list(getattr(future, "_done_callbacks", ()))
