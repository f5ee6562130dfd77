"""The termination of one pid: its steps, and waiting.

steps.py     one termination: quiesce, cleanup, retry, verify, account
waiting.py   waiting on threads and on event loops
hookcall.py  what a hook may ask of the termination that calls it, and tell it
"""
