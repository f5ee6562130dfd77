"""Runs a command that knows nothing of Probate, and settles what its tree leaves.

options.py what is said before the command
account.py what became of what was left

All of it is private, and imports little: what starts a command is waited for.
"""
