"""The walls of the house: which module may import which. docs/explanation/architecture.md has the picture."""

from __future__ import annotations

import ast
import graphlib
import io
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "trio_session"

# From the ground up. A module may import what is below it, and its neighbours as long as that is no circle.
# The front door (`trio_session` itself) counts as a floor: what it shows is below it, what uses it above.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("_errors",),
    ("abc",),
    (
        "_codec",
        "_config",
        "_cookies",
        "_encryption",
        "_generators",
        "_ids",
        "_known",
        "_places",
        "_redis_connection",
        "_settings",
        "_states",
        "_working",
    ),
    ("_deadlines", "_gate", "_instruments", "_leases", "_local_store", "_tasks", "redis"),
    ("_locks",),
    ("_block", "_engine", "_lifecycle", "_manager", "_session"),
    ("_asgi", "_lifespan", "_middleware"),
    ("__init__",),
    ("serving", "web"),
    ("cli",),
    ("testing",),
)
PURE = FLOORS[0] + FLOORS[2]

# Foreign packages that only these rooms may enter; `testing` may enter every one.
ROOMS = {
    "asyncio": (),
    "cryptography": ("_encryption",),
    "hiredis": ("redis",),
    "hypercorn": ("cli", "serving"),
    "pytest": (),
    "redis": ("cli", "redis"),
    "werkzeug": ("web",),
}


def test_every_module_has_a_floor() -> None:
    """A new module gets a place in FLOORS before anything else."""
    homeless = {_room(name) for name in SOURCES} - {room for floor in FLOORS for room in floor}
    assert not homeless, f"give {sorted(homeless)} a floor in {Path(__file__).name}"


def test_arrows_point_down() -> None:
    """No module imports one from a floor above its own."""
    floor_of = {room: number for number, floor in enumerate(FLOORS) for room in floor}
    wrong = [
        f"{name}:{line} imports {target}"
        for name, tree in SOURCES.items()
        for target, line in _own_imports(name, tree)
        if floor_of[_room(target)] > floor_of[_room(name)]
    ]
    assert not wrong


def test_no_module_imports_itself_in_a_circle() -> None:
    """Neighbours may know each other, but never both ways."""
    graph = {name: {target for target, _ in _own_imports(name, tree)} for name, tree in SOURCES.items()}
    graphlib.TopologicalSorter(graph).prepare()  # a CycleError names the circle


@pytest.mark.parametrize("foreign", sorted(ROOMS))
def test_foreign_packages_stay_in_their_rooms(foreign: str) -> None:
    """Werkzeug is the web half's business, Redis the Redis store's, asyncio nobody's."""
    wrong = [
        f"{name}:{line}"
        for name, tree in SOURCES.items()
        if _room(name) not in (*ROOMS[foreign], "testing")
        for target, line in _foreign_imports(tree)
        if target.partition(".")[0] == foreign
    ]
    assert not wrong


@pytest.mark.parametrize("room", PURE)
def test_pure_modules_never_wait(room: str) -> None:
    """The ground floor can be read, and tested, without a thought of who else runs."""
    source = (PACKAGE / f"{room}.py").read_text(encoding="utf-8")
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    waits = [token.start[0] for token in tokens if token.string in {"async", "await"}]
    assert not waits, f"{room} waits in lines {waits}"


def test_importing_the_package_loads_neither_werkzeug_nor_redis() -> None:
    """Who uses the middleware with local sessions pays for nothing else."""
    script = "import sys, trio_session; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout.split()
    assert "trio_session" in loaded
    unwanted = {*ROOMS, "opentelemetry"} - {"asyncio"}
    unwanted |= {"trio_session.redis", "trio_session.testing", "trio_session.web"}
    too_much = sorted(unwanted.intersection(loaded))
    assert not too_much


def _own_imports(name: str, tree: ast.Module) -> Iterator[tuple[str, int]]:
    """The modules of this package that a module imports, wherever in it, with the line."""
    package = name.split(".")
    if not ROOT.joinpath(*package).is_dir():
        package.pop()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            targets = {_module(f"{module}.{alias.name}") for alias in node.names}
        elif isinstance(node, ast.Import):
            targets = {_module(alias.name) for alias in node.names}
        else:
            continue
        yield from ((target, node.lineno) for target in targets if target)


def _foreign_imports(tree: ast.Module) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module, node.lineno
        elif isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)


def _module(dotted: str) -> str | None:
    """The longest part of `trio_session.x.y.Name` that is a module of ours."""
    while dotted:
        if dotted in SOURCES:
            return dotted
        dotted = dotted.rpartition(".")[0]
    return None


def _room(name: str) -> str:
    """`trio_session.web._app` is in the room `web`, the front door in `__init__`."""
    return [*name.split("."), "__init__"][1]


def _sources() -> dict[str, ast.Module]:
    found: dict[str, ast.Module] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return found


SOURCES = _sources()
