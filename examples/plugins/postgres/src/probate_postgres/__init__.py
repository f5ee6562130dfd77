"""Probate's kind `postgres`: advisory locks and temporary databases of a PostgreSQL server.

manager.py   PostgresManager: takes locks and makes databases
server.py    how a server is found again, and what is asked of it
resource.py  PostgresResource: the kind
"""

from __future__ import annotations

from probate_postgres.manager import AdvisoryLock, PostgresManager, TemporaryDatabase
from probate_postgres.resource import PostgresResource

__all__ = ["AdvisoryLock", "PostgresManager", "PostgresResource", "TemporaryDatabase"]
