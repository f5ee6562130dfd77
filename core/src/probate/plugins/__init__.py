"""From entry points to a sorted registry.

discovery.py    entry points to plugins and their fates
requirement.py  which core a plugin asks for
fate.py         what became of an entry point
hookmanager.py  pluggy's manager, with our hooks
contract.py     whether a plugin keeps the contract
wiring.py       finds a plugin's tables
registered.py   one registered plugin, and its hooks
registry.py     registered plugins, validated and sorted
"""
