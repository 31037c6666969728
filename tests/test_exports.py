"""The front doors: what users may import, that it is all described, and that nothing else shows."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

DOORS = (
    "trio_session",
    "trio_session.abc",
    "trio_session.redis",
    "trio_session.serving",
    "trio_session.testing",
    "trio_session.web",
)


@pytest.fixture(params=DOORS)
def door(request: pytest.FixtureRequest) -> ModuleType:
    """Each public module in turn."""
    return importlib.import_module(request.param)


def test_all_is_sorted(door: ModuleType) -> None:
    """`__all__` reads like an index: constants, classes, functions, each by name."""
    names = list(door.__all__)
    assert names == sorted(set(names), key=_as_in_an_index)


def test_all_is_true(door: ModuleType) -> None:
    """Every name in `__all__` is really there."""
    missing = [name for name in door.__all__ if not hasattr(door, name)]
    assert not missing


def test_nothing_else_is_public(door: ModuleType) -> None:
    """A public name that is not in `__all__` would be used by somebody one day."""
    assert door.__file__ is not None
    tree = ast.parse(Path(door.__file__).read_text(encoding="utf-8"))
    is_package = hasattr(door, "__path__")
    leaks = {
        name
        for name in _bound_names(tree, with_imports=is_package)
        if not name.startswith("_") and name not in door.__all__
    }
    assert not leaks


def test_every_public_name_is_described(door: ModuleType) -> None:
    """Classes and functions have a docstring of their own, and so have the public methods of classes."""
    silent: list[str] = []
    for name in door.__all__:
        value = getattr(door, name)
        if inspect.isclass(value):
            if not _describes(value.__dict__.get("__doc__"), name):
                silent.append(name)
            silent += [f"{name}.{member}" for member in _silent_members(value)]
        elif callable(value) and hasattr(value, "__code__") and not _describes(value.__doc__, name):
            silent.append(name)
    assert not silent


def test_the_door_itself_is_described(door: ModuleType) -> None:
    """The first thing a reader sees says what is behind the door."""
    assert _describes(door.__doc__, door.__name__)


def _bound_names(tree: ast.Module, *, with_imports: bool) -> Iterator[str]:
    """What the top level of a module binds; submodules, which Python binds by itself, are not among it.

    What a plain module imports for its own use is nobody's business (the typing rules say so too), but a
    package's `__init__` has no business of its own: what it imports, it shows.
    """
    for node in tree.body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name
            case ast.Assign():
                for target in node.targets:
                    yield from (leaf.id for leaf in ast.walk(target) if isinstance(leaf, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case ast.ImportFrom(module="__future__"):
                pass
            case ast.Import() | ast.ImportFrom():
                for alias in node.names:
                    if with_imports or alias.asname == alias.name:
                        yield alias.asname or alias.name.partition(".")[0]
            case _:
                pass


def _silent_members(cls: type) -> Iterator[str]:
    for name, member in vars(cls).items():
        inner = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        if name.startswith("_") or not (inspect.isfunction(inner) or isinstance(inner, property)):
            continue
        if not _describes(inspect.getdoc(getattr(cls, name)), name):
            yield name


def _describes(doc: str | None, name: str) -> bool:
    """A sentence, and not the signature that `dataclass` writes where nobody wrote anything."""
    return doc is not None and bool(doc.strip()) and not doc.startswith(f"{name}(")


def _as_in_an_index(name: str) -> tuple[int, list[tuple[int, str]]]:
    """The order of ruff's RUF022, which sorts `__all__` for us."""
    kind = 0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2
    return kind, [(int(part or 0), text) for text, part in re.findall(r"(\D*)(\d*)", name)]
