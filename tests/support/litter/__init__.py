"""What is left of a program that makes one of everything, by who has run it and how it has ended.

program.py      the program: it knows nothing of who runs it
things.py       what it makes: whether that is there, and how it is removed
supervisors.py  who runs it, and what each of them is for
peers.py        those of them that the machine has not: fetched into a folder, nothing is installed
results.py      all cells, as they are stored
page.py         docs/comparison.md

Beside it, litter_cell.py has one supervisor run it and one failure happen, and litter_table.py all.
"""
