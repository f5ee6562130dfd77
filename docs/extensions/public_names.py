"""The reference of names: what is public is documented once, and found by each of its names.

    .. public-names:: probate
       :from: probate.process

documents, by autodoc, the names that `probate` lists and that live below `probate.process`; without
`:from:`, all that a module lists and that has no home in a module before it. `:names:` and
`:without:` say which of them. A name between single backticks in a docstring is a link, if it is
one of these.

`public_names()` is what is public: the test that all of it is in the reference asks it, too.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import inspect
import re
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.addnodes import pending_xref
from sphinx.domains.python import ObjectEntry
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective, SphinxRole
from sphinx.util.nodes import make_refnode

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

#: Modules of the core that list public names, in the order in which they may be a name's home.
CORE: Final = (
    "probate",
    "probate.hookspecs",
    "probate.errors",
    "probate.models",
    "probate.settings",
    "probate.ownership",
    "probate.process",
    "probate.journal",
    "probate.settlement",
    "probate.system",
    "probate.testing",
)


class PublicName(NamedTuple):
    """A name that a public module lists."""

    module: str
    name: str

    @property
    def value(self) -> Any:
        """What it means; loaded when it is asked for."""
        return getattr(importlib.import_module(self.module), self.name)

    @property
    def full(self) -> str:
        """The name as it is imported."""
        return f"{self.module}.{self.name}"

    @property
    def home(self) -> str:
        """The module that it is written in, as far as can be told."""
        homes: dict[str, str] = getattr(importlib.import_module(self.module), "_HOMES", {})
        return homes.get(self.name) or getattr(self.value, "__module__", None) or self.module


def modules() -> list[str]:
    """The public modules: the core's, and those of its own kinds, as they are installed."""
    kinds = importlib.metadata.entry_points(group="probate.resources")
    ours = {each.module for each in kinds if each.module.startswith("probate_")}
    return [*CORE, *sorted(ours)]


def listed(module: str) -> list[str]:
    """The public names of a module: `__all__`, or what it defines."""
    found = importlib.import_module(module)
    if hasattr(found, "__all__"):
        return list(found.__all__)
    return [
        name
        for name, value in vars(found).items()
        if not name.startswith("_")
        and (name.isupper() or name == "hookimpl" or getattr(value, "__module__", "") == module)
        and name != "TYPE_CHECKING"
    ]


def public_names() -> list[PublicName]:
    """All of them, each as often as it is listed."""
    return [PublicName(module, name) for module in modules() for name in listed(module)]


def first_names() -> dict[str, str]:
    """For each public name, by its full name, the one that the reference has it by."""
    by_value: dict[tuple[str, int], str] = {}
    return {
        each.full: by_value.setdefault((each.name, id(each.value)), each.full)
        for each in public_names()
    }


class PublicNames(SphinxDirective):
    """Documents the public names of a module."""

    required_arguments = 1
    option_spec: ClassVar[Any] = dict.fromkeys(("from", "names", "without"), directives.unchanged)

    def run(self) -> list[nodes.Node]:
        """Leave it to autodoc, name by name."""
        module = self.arguments[0]
        homes = tuple(self.options.get("from", "").split())
        names = self.options.get("names", "").split() or listed(module)
        without = self.options.get("without", "").split()
        first = first_names()
        text = [f".. py:module:: {module}", "   :no-index:" if self.options else "", ""]
        for each in (PublicName(module, name) for name in names if name not in without):
            if first[each.full] == each.full and each.home.startswith(homes or ""):
                text += _autodoc(each)
        return self.parse_text_to_nodes("\n".join(text))


def _autodoc(each: PublicName) -> list[str]:
    value = each.value
    if inspect.isclass(value):
        is_error = issubclass(value, BaseException)
        lines = [f".. auto{'exception' if is_error else 'class'}:: {each.full}", "   :members:"]
        functions = _function_fields(value)
        members = ["model_config", "model_post_init", "add_note", "with_traceback", *functions]
        lines += [f"   :exclude-members: {', '.join(members)}"]
        if hasattr(value, "model_fields"):
            lines.append("   :undoc-members:")
        if is_error:
            lines.append("   :show-inheritance:")
        for name in functions:
            lines += ["", f"   .. autoattribute:: {each.full}.{name}", "      :no-value:"]
    elif inspect.isroutine(value):
        lines = [f".. autofunction:: {each.full}"]
    else:
        lines = [f".. autodata:: {each.full}", "   :no-value:"]
    return [*lines, ""]


def _function_fields(value: type) -> list[str]:
    """The fields whose default is a function or class: autodoc takes them for a method or class."""
    fields = dataclasses.fields(value) if dataclasses.is_dataclass(value) else ()
    return [each.name for each in fields if callable(each.default)]


# -- docstrings --------------------------------------------------------------------------------


def _finish(
    _app: Sphinx, what: str, name: str, thing: Any, _options: Any, lines: list[str]
) -> None:
    """Make what is indented code, as it is to who reads the source; say where a hook runs.

    Of a value that is listed by another module than its own, autodoc knows its type's docstring;
    what is meant is the comment above it.
    """
    if what == "data":
        module, _, last = name.rpartition(".")
        home = PublicName(module, last).home
        comments = ModuleAnalyzer.for_module(home).find_attr_docs()
        lines[:] = comments.get(("", last), [])
    for number in reversed(range(1, len(lines))):
        is_first = lines[number].startswith("    ") and not lines[number - 1].strip()
        before = [line for line in lines[:number] if line.strip()]
        if is_first and before and not before[-1].startswith(" "):
            lines[number:number] = ["::", ""]
    if hasattr(thing, "probate_spec"):
        hook = hooks()[thing.__name__]
        lines += ["", f"*{hook.need.capitalize()}.* Runs on **{hook.thread}**.", ""]


def _sign(
    _app: Sphinx,
    _what: str,
    _name: str,
    thing: Any,
    _options: Any,
    arguments: str | None,
    *rest: Any,
) -> tuple[str, Any] | None:
    """Leave out what pydantic makes of its fields, which follow; and defaults that are no code."""
    if inspect.isclass(thing) and hasattr(thing, "model_fields"):
        return "", ""
    return None if arguments is None else (re.sub(r"= <.+?>(?=[,)])", "= ...", arguments), *rest)


class Hook(NamedTuple):
    """What the contract's table says of a hook."""

    need: str
    thread: str


def hooks() -> dict[str, Hook]:
    """Read the table of `probate.hookspecs`: by the hook's name."""
    from probate import hookspecs

    rows = re.findall(
        r"^    `(\w+)` +(required|optional) .* {2,}(\S.*)$", hookspecs.__doc__ or "", re.MULTILINE
    )
    return {name: Hook(need, thread) for name, need, thread in rows}


# -- links -------------------------------------------------------------------------------------


class Named(SphinxRole):
    """What stands between single backticks in a docstring: a link, if it is a name of ours."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Make a link that may come to nothing."""
        target = self.text.removesuffix("()")
        literal = nodes.literal(self.rawtext, self.text, classes=["py", "py-obj"])
        if not target.replace(".", "").isidentifier():
            return [nodes.literal(self.rawtext, self.text)], []
        reference = pending_xref(
            self.rawtext,
            literal,
            refdomain="py",
            reftype="obj",
            reftarget=target,
            refexplicit=False,
            refwarn=False,
            may_be_none=True,
            refdoc=self.env.docname,
        )
        reference["py:module"] = self.env.ref_context.get("py:module")
        reference["py:class"] = self.env.ref_context.get("py:class")
        return [reference], []


def _find(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.Node | None:
    """Find by its last part what has but one meaning; leave others' names as they are.

    Annotations name things as their modules do, and the standard library's are no pages of ours.
    A name that is said to be Probate's, and is not, stays a warning.
    """
    if node.get("refdomain") != "py":
        return None
    target: str = node["reftarget"]
    last = target.rpartition(".")[2]
    objects = env.domains.python_domain.objects
    if target == last or target.startswith("probate"):
        found = _by_last_part(env).get(last)
        if found is not None:
            entry = objects[found]
            return make_refnode(
                app.builder, node["refdoc"], entry.docname, entry.node_id, content, found
            )
    # An annotation has no such mark, and may name what is private.
    is_asked_for = "refwarn" in node and not node.get("may_be_none")
    return None if target.startswith("probate") and is_asked_for else content


def _by_last_part(env: BuildEnvironment) -> dict[str, str]:
    found: dict[str, str] | None = getattr(env, "probate_last_parts", None)
    if found is None:
        objects = env.domains.python_domain.objects
        found = {}
        for full in first_names().values():
            if full in objects:
                found.setdefault(full.rpartition(".")[2], full)
        env.probate_last_parts = found  # type: ignore[attr-defined]  # as extensions do
    return found


def _add_other_names(_app: Sphinx, env: BuildEnvironment) -> None:
    """Enter each name that is listed twice under its other names, too (objects.inv, links)."""
    objects = env.domains.python_domain.objects
    for full, first in first_names().items():
        if first in objects and full not in objects:
            entry = objects[first]
            objects[full] = ObjectEntry(entry.docname, entry.node_id, entry.objtype, aliased=True)


def setup(app: Sphinx) -> dict[str, bool]:
    """Tell Sphinx of all of it."""
    app.add_directive("public-names", PublicNames)
    app.add_role("named", Named())
    app.connect("autodoc-process-docstring", _finish)
    app.connect("autodoc-process-signature", _sign)
    app.connect("missing-reference", _find)
    app.connect("env-updated", _add_other_names)
    return {"parallel_read_safe": False}
