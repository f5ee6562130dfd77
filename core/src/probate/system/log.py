"""The one logger, `probate`; docs/watching.md says what is logged at which level.

It has a handler that does nothing, so that nothing is printed in a program that has configured no
logging (Python's logging HOWTO, "Configuring Logging for a Library").
"""

from __future__ import annotations

import logging
from typing import Final

logger: Final = logging.getLogger("probate")
logger.addHandler(logging.NullHandler())
