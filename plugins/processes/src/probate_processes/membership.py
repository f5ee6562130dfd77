"""Whose an orphan is, by what it shows."""

from __future__ import annotations

import os
from collections import defaultdict
from typing import TYPE_CHECKING, final

from probate.system import tag_maker
from probate_processes.marks import UNWORN, tag_maker_of

if TYPE_CHECKING:
    from probate_processes.lineage import Lineage
    from probate_processes.threadmarks import Worn
    from probate_processes.tree import Tree


@final
class MarkedTrees:
    """Finds the tree of a child by the marks that it shows, whatever number of trees there is."""

    def __init__(self) -> None:
        self._by_tag: dict[int, Tree] = {}
        self._by_tag_maker: dict[int, Tree] = {}
        self._by_token: dict[bytes, Tree] = {}
        self._by_cgroup: dict[str, Tree] = {}
        #: By kind of number, and by number: several trees may have one of their numbers in common.
        self._by_number: tuple[defaultdict[int, list[Tree]], ...] = tuple(
            defaultdict(list) for _ in UNWORN
        )

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._by_tag)

    def only(self) -> Tree | None:
        """Return the tree, if there is but one."""
        return next(iter(self._by_tag.values())) if len(self._by_tag) == 1 else None

    def add(self, tree: Tree) -> None:
        """Add a tree, if its processes are marked."""
        if tree.mark is None:
            return
        self._by_tag[tree.mark.tag] = tree
        self._by_token[tree.mark.token] = tree
        self._by_tag_maker[tag_maker_of(tree.leader)] = tree
        if tree.cgroup is not None:
            self._by_cgroup[tree.cgroup.path] = tree
        for by_number, number in zip(self._by_number, tree.mark.worn, strict=True):
            if number:
                by_number[number].append(tree)

    def discard(self, tree: Tree) -> None:
        """Take a tree out."""
        if tree.mark is None or self._by_tag.pop(tree.mark.tag, None) is None:
            return
        self._by_token.pop(tree.mark.token, None)
        if self._by_tag_maker.get(maker := tag_maker_of(tree.leader)) is tree:
            del self._by_tag_maker[maker]
        if tree.cgroup is not None:
            self._by_cgroup.pop(tree.cgroup.path, None)
        for by_number, number in zip(self._by_number, tree.mark.worn, strict=True):
            if number:
                by_number[number].remove(tree)
                if not by_number[number]:
                    del by_number[number]

    def tree_of(self, lineage: Lineage) -> Tree | None:
        """Return whose a child is; None if it shows nothing that only one tree gives."""
        if (tree := self._by_worn(lineage.worn)) is not None:
            return tree
        if (tag := lineage.tag) is not None:
            tree = self._by_tag.get(tag) or self._by_tag_maker.get(tag_maker(tag))
        if tree is None and (path := lineage.cgroup) is not None and self._by_cgroup:
            while tree is None and len(path) > 1:
                tree = self._by_cgroup.get(path)
                path = os.path.dirname(path)  # noqa: PTH120  paths take longer
        if tree is None:
            found = (self._by_token.get(token) for token in lineage.tokens)
            tree = next((each for each in found if each is not None), None)
        return tree

    def _by_worn(self, worn: Worn) -> Tree | None:
        """By numbers: of a host within a tree, the hint is still that of the tree.

        So a slice alone tells only where there is no hint that is one of ours.
        """
        by_slice, by_hint, by_slack = (
            by_number.get(number, [])
            for by_number, number in zip(self._by_number, worn, strict=True)
        )
        if by_hint:
            both = [tree for tree in by_hint if tree in by_slice]
            found = both or by_hint
        else:
            found = by_slice or by_slack
        return found[0] if len(found) == 1 else None
