"""The version of the core, in one place."""

__version__ = "0.1.0"
