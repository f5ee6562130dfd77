"""The public face: what is named is there, documented, light to import, and drawn truly."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from core_scripts import run_script
from documents import REPOSITORY

import probate
from probate import errors, hookspecs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CORE = REPOSITORY / "core" / "src" / "probate"
#: The kinds of this repository, those that are examples included.
PLUGINS = [*REPOSITORY.glob("plugins/*/src/**/*.py"), *REPOSITORY.glob("examples/*/*/src/**/*.py")]
SOURCES = sorted([*CORE.rglob("*.py"), *PLUGINS])
PACKAGES = sorted({path.parent for path in SOURCES})
HOOKS = [name for name, value in vars(hookspecs).items() if hasattr(value, "probate_spec")]


#: The public faces that load their names when they are first used.
FACES = ["probate", "probate.process", "probate.system", "probate.testing"]


def shown_to_checkers(face: str) -> dict[str, str]:
    """Name to module, as the face's `if TYPE_CHECKING` block tells checkers."""
    package = ast.parse(Path(importlib.import_module(face).__file__ or "").read_text()).body
    first = next(node for node in package if isinstance(node, ast.If))
    return {
        alias.name: node.module or ""
        for node in first.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


@pytest.mark.parametrize("face", FACES)
def test_every_public_name_resolves_where_checkers_are_told(face: str) -> None:
    """The one map, and the block for checkers, say the same; and it is so."""
    module = importlib.import_module(face)

    assert shown_to_checkers(face) == module._HOMES
    for name, home in module._HOMES.items():
        assert getattr(module, name) is getattr(importlib.import_module(home), name)


@pytest.mark.parametrize("face", FACES)
def test_all_is_sorted_and_complete(face: str) -> None:
    """`__all__` has every name once, in order."""
    names = importlib.import_module(face).__all__

    assert sorted(set(names)) == names


def test_nonsense_is_an_attribute_error() -> None:
    """As for any module; `from probate import nonsense` is an ImportError."""
    with pytest.raises(AttributeError, match="module 'probate' has no attribute 'nonsense'"):
        probate.nonsense  # type: ignore[attr-defined]  # noqa: B018  the access is the test
    with pytest.raises(ImportError):
        exec("from probate import nonsense")


def test_import_is_light() -> None:
    """`import probate` imports neither pydantic, asyncio, stevedore nor psutil."""
    script = run_script(
        "import sys, probate; "
        "print(sorted({'pydantic', 'asyncio', 'stevedore', 'psutil'} & set(sys.modules)))"
    )

    assert (script.stdout, script.stderr) == ("[]\n", "")


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_documented(hook: str) -> None:
    """A docstring of its own, and a place in the text of the module and of the design."""
    assert inspect.getdoc(getattr(hookspecs, hook))
    assert f"`{hook}`" in (hookspecs.__doc__ or "")


def test_the_required_hooks_are_hooks() -> None:
    """And the nine of the contract are all that there are."""
    assert set(hookspecs.REQUIRED_HOOKS) < set(HOOKS)
    assert HOOKS == [
        "ordering", "has_resources", "cleanup", "quiesce", "adopt", "observe", "reclaim", "usage",
        "noticed",
    ]  # fmt: skip


def public_things() -> Iterator[tuple[str, Any]]:
    """Every class and function in `__all__`, and every public method and property of ours."""
    for name in probate.__all__:
        value = getattr(probate, name)
        if not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        yield name, value
        for attribute, member in vars(value).items() if inspect.isclass(value) else ():
            function = getattr(member, "__func__", member)
            is_ours = isinstance(member, property) or inspect.isfunction(function)
            if (
                is_ours
                and not attribute.startswith("_")
                and "pydantic" not in (getattr(function, "__module__", "") or "")
            ):
                yield f"{name}.{attribute}", member


def test_everything_public_has_a_docstring() -> None:
    """Of its own: an inherited one does not count."""
    bare = [name for name, value in public_things() if not (value.__doc__ or "").strip()]

    assert bare == []


def drawn_tree() -> dict[str, str]:
    """Class to parent, as the module's docstring draws it."""
    parents: dict[str, str] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"    ((?:[│ ]   )*(?:[├└]── )?)([A-Z]\w+)", line)
        if match:
            depth = len(match[1]) // 4
            del above[depth:]
            if above:
                parents[match[2]] = above[-1]
            above.append(match[2])
    return parents


def test_the_exception_tree_is_as_drawn() -> None:
    """Every exception of ours is in the drawing, under its real parent; also-bases are noted."""
    real = {
        name: value.__mro__[1].__name__
        for name, value in vars(errors).items()
        if inspect.isclass(value)
        and issubclass(value, errors.ProbateError)
        and value is not errors.ProbateError
    }
    also = {
        match[1]: match[2]
        for match in re.finditer(r"(\w+) .*\(also an? (\w+)\)", errors.__doc__ or "")
    }
    real_also = {
        name: vars(errors)[name].__bases__[1].__name__
        for name in real
        if len(vars(errors)[name].__bases__) > 1
    }

    assert drawn_tree() == real
    assert also == real_also
    assert issubclass(probate.InterruptedCleanup, BaseException)
    assert not issubclass(probate.InterruptedCleanup, Exception)


#: Rooms of the core, lowest first: each imports only from those before it, and its own.
ROOMS = [
    "version", "outcome", "ordering", "errors", "system", "models", "journal", "hookspecs",
    "ownership", "plugins", "termination", "orchestrator", "settlement", "settings", "run",
    "process", "testing", "cli", "__main__",
]  # fmt: skip


def room_of(name: str) -> str:
    return name.removeprefix("probate").removeprefix(".").partition(".")[0]


def test_no_room_imports_from_a_higher_one() -> None:
    """A newcomer reads from the ground up: what is imported anywhere at run time lies below."""
    wrong = []
    for path in CORE.rglob("*.py"):
        name = module_name(path)
        if name == "probate":
            continue
        height = ROOMS.index(room_of(name))
        wrong += [
            f"{name} imports {other}"
            for other in imports_at_import_time(path)
            # What is no room is a name of the face, which is above all rooms but the command's.
            if other.startswith("probate.")
            and (ROOMS.index(room_of(other)) if room_of(other) in ROOMS else len(ROOMS) - 3)
            > height
        ]

    assert wrong == []


def test_plugins_import_from_the_public_faces_only() -> None:
    """What plugins need is public: the names that the core's faces list, from these faces."""
    faces = {
        "probate",
        "probate.errors",
        "probate.hookspecs",
        "probate.journal",
        "probate.models",
        "probate.ownership",
    }
    faces |= {"probate.process", "probate.settings", "probate.system", "probate.testing"}
    wrong = []
    for path in PLUGINS:
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                not isinstance(node, ast.ImportFrom)
                or (node.module or "").split(".")[0] != "probate"
            ):
                continue
            if node.module not in faces:
                wrong.append(f"{path.name} imports from {node.module}")
                continue
            public = getattr(importlib.import_module(node.module), "__all__", None)
            wrong += [
                f"{path.name} imports {alias.name} from {node.module}"
                for alias in node.names
                if public is not None and alias.name not in public
            ]

    assert wrong == []


def test_the_longest_import_chain_is_short() -> None:
    """From any module of the core but the cli's, at most twelve imports down to the ground."""
    modules = {module_name(path): path for path in CORE.rglob("*.py") if "cli" not in path.parts}
    graph = {
        name: {other for other in imports_at_import_time(path) & modules.keys() if other != name}
        for name, path in modules.items()
    }

    @functools.cache
    def depth(name: str) -> int:
        below = [depth(other) for other in graph[name] if not name.startswith(f"{other}.")]
        return 1 + max(below, default=0)

    assert max(map(depth, graph)) <= 12


def test_the_root_is_small() -> None:
    """At most ten modules at the root: a newcomer knows each."""
    assert len(list(CORE.glob("*.py"))) <= 10


def module_name(path: Path) -> str:
    parts = path.relative_to(next(p for p in path.parents if p.name == "src")).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_at_import_time(path: Path) -> set[str]:
    """The modules that a module imports at its top level, TYPE_CHECKING blocks left out."""
    return names_imported(ast.parse(path.read_text()).body)


def all_imports(path: Path) -> set[str]:
    """As `imports_at_import_time`, and what is imported late, or for its types alone."""
    return names_imported(ast.walk(ast.parse(path.read_text())))


def names_imported(nodes: Iterable[ast.AST]) -> set[str]:
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def test_arrows_point_one_way() -> None:
    """The core imports no plugin; nothing but the cli imports the cli."""
    wrong = []
    for path in SOURCES:
        text = path.read_text()
        if CORE in path.parents and re.search(r"(?m)^\s*(?:import|from) probate_\w+", text):
            wrong.append(f"{path} imports a plugin")
        is_cli = CORE / "cli" in path.parents or path.name == "__main__.py"
        if not is_cli and re.search(r"(?:import|from) probate\.cli", text):
            wrong.append(f"{path} imports the cli")

    assert wrong == []


def test_there_are_no_cycles() -> None:
    """Who knows whom is a one-way street in all distributions, also late, and for types alone."""
    import graphlib

    modules = {module_name(path): path for path in SOURCES}
    graph = {
        name: {
            other
            for other in all_imports(path) & modules.keys()
            # A package's own __init__ runs before its parts in any case.
            if not name.startswith(f"{other}.")
        }
        for name, path in modules.items()
    }

    assert list(graphlib.TopologicalSorter(graph).static_order())


def test_no_module_is_over_400_lines() -> None:
    """A module over 400 lines is two rooms."""
    long = {str(p): n for p in SOURCES if (n := len(p.read_text().splitlines())) > 400}

    assert len(SOURCES) > 30
    assert long == {}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_the_layout_names_every_module(package: Path) -> None:
    """The comment at the top of a package says which module is what; a folder is one room."""
    layout = ast.get_docstring(ast.parse((package / "__init__.py").read_text())) or ""
    rooms = {
        f"{path.name}/" if path.is_dir() else path.name
        for path in package.iterdir()
        if (path.suffix == ".py" and path.name != "__init__.py") or (path / "__init__.py").exists()
    }

    assert rooms == set(re.findall(r"^\s*(\w+(?:\.py|/)) ", layout, re.MULTILINE))
