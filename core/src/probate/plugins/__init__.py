"""From entry points to a sorted registry.

discovery.py    entry points to plugins, and what became of each
requirement.py  which core a plugin asks for
order.py        the cleanup order, from the place that each kind asks for
hookmanager.py  pluggy's manager, with our hooks
contract.py     whether a plugin keeps the contract
kind.py         ResourceKind: a kind from a table, a place and a few functions
wiring.py       finds a plugin's tables
registered.py   one registered plugin, and its hooks
registry.py     registered plugins, validated and sorted
"""
