"""Runs a command that knows nothing of Probate, and settles what its tree leaves.

options.py      what is said before the command
front.py        the process that is seen in its place, and waits for it
launching.py    the command's own process, until it is the command
signalqueue.py  all signals that come to the front, and from whom
groupwitness.py which of them went to the whole process group
terminal.py     stopping with the command, and the terminal as it was
facts.py        what is known of a run before its command starts
keeper.py       Keeper: the process that settles, as its front has it
apart.py        that process, where it is not forked from its front
serving.py      that process, at work
served.py       ServedRun: one run, as that has it
messages.py     what the two tell each other
isolate.py      namespaces of its own for a command
filter.py       the filter of system calls that a command runs under
notices.py      what it holds, and what that is about to make
onbehalf.py     System V objects, made for who asks for them
intents.py      whether that is anything to be given back
watching.py     Watch: what becomes of what is noticed
deletions.py    what is taken away by name meanwhile
processnotices.py  what is noted of its OS processes
row.py          one thing that was made
rows.py         what was made, in the journal
tree.py         the OS processes of a run: found, and ended
ending.py       the end of a run
observing.py    Observation: a program that a host spawns, looked on
held.py         ordinary files that it has made and holds
kinds.py        the kinds that it needs then
account.py      what became of what was left

All of it is private, and imports little: what starts a command is waited for.
"""
