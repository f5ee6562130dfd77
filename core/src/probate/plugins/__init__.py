"""Finds plugins by their entry points, checks them, and keeps them in cleanup order.

discovery.py    finds, loads and registers what is installed
discovered.py   what became of one entry point
requirement.py  which core a plugin asks for
contract.py     checks whether a plugin keeps the contract
kind.py         ResourceKind: a kind made of a table, a place and a few functions
wiring.py       finds a plugin's tables
order.py        the cleanup order, from the place that each kind asks for
hookmanager.py  pluggy's manager, which knows whether anybody observes
observing.py    what a live OS process holds, as all kinds see it
tracing.py      writes of each call, where that is asked for
registered.py   one registered plugin, and its hooks
registry.py     the registered plugins, in cleanup order
"""
