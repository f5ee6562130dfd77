"""The conformance kit: whether a kind keeps the contract, by whatever it is written.

description.py  KindDescription: what the kit has to know of a kind
cases.py        the checks, as cases for any test runner
static.py       what can be told before anything is made
fault.py        ConformanceError: what a kind fails by
trial.py        the kinds, owners and things of one check, and their end
bookkeeping.py  what a kind says it owns: truth, accounts, limits, cost
isolation.py    other owners, and other managers
releasing.py    order, failures, what is busy, what hangs
quiescing.py    asking, without force
acquiring.py    what is acquired while its owner ends
adopting.py     what was made elsewhere
growth.py       what this process holds more than before
remains.py      what the kernel has left of it all
afterdeath.py   what a killed host has left by name
killedhost.py   such a host

Public are the names that `probate.testing` lists.
"""
