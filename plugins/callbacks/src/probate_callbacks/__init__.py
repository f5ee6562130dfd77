"""Probate's kind `callbacks`: anything, with the function that gives it back.

resource.py  CallbackResource: the kind
"""

from __future__ import annotations

from probate_callbacks.resource import CallbackResource

__all__ = ["CallbackResource"]
