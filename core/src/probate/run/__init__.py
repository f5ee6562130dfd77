"""Runs a command that knows nothing of Probate, and settles what its tree leaves.

options.py  what is said before the command
keeper.py   Keeper: the process that settles, as its front has it
serving.py  that process
messages.py what the two tell each other
tree.py     the OS processes of a run: found, and ended
account.py  what became of what was left

All of it is private, and imports little: what starts a command is waited for.
"""
