"""What the kernel and the interpreter offer.

osprocess.py   one OS process, pinned by a pidfd
deathwatch.py  the thread that the kernel tells of deaths
forking.py     a forked child owns nothing
thread.py      calls that may hang
lazy.py        modules imported when first used
"""
