"""The Markdown files keep their promises: tests they name exist, links lead somewhere, and Python is Python."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from tests.test_exports import DOORS

__all__ = ["ROOT", "Block", "blocks_of", "blocks_of_page"]

ROOT = Path(__file__).resolve().parent.parent

_FOLDERS = ("docs", "examples", "tests", "trio_session", ".ci", ".github")

PAGES = sorted([*ROOT.glob("*.md"), *(page for folder in _FOLDERS for page in (ROOT / folder).rglob("*.md"))])

_find_named_tests = re.compile(r"\b(tests/[\w/]+\.py)::(\w+)").findall
_find_described = re.compile(r"^\.\. auto\w+:: ([\w.]+)", re.MULTILINE).findall
_match_fence = re.compile(r" *(`{3,}(?=[^`]*$)|~{3,})[ \t]*([\w+-]*)").match
_drop_code = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)", re.DOTALL).sub
_find_links = re.compile(
    r"\]\(\s*<?([^\s)>]+)|^ {0,3}\[[^\]^]+\]:\s*<?([^\s>]+)|\b(?:src|href)=\"([^\"]+)\"", re.MULTILINE
).findall
_is_address = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:|//").match


@dataclass(frozen=True)
class Block:
    """A fenced block; `line` is that of its first line of code, counted from 1."""

    language: str
    line: int
    text: str


def _parse(markdown: str) -> tuple[list[Block], str]:
    """The fenced blocks, and the text around them."""
    blocks: list[Block] = []
    prose: list[str] = []
    lines = iter(enumerate(markdown.splitlines(), 1))
    for number, line in lines:
        fence = _match_fence(line)
        if fence is None:
            prose.append(line)
            continue
        marker, language = fence.groups()
        indent = len(line) - len(line.lstrip(" "))
        code: list[str] = []
        for _, inside in lines:
            stripped = inside.strip()
            if set(stripped) == {marker[0]} and len(stripped) >= len(marker):
                break
            code.append(inside[min(indent, len(inside) - len(inside.lstrip(" "))) :])
        else:
            raise ValueError(f"the fence in line {number} is never closed")
        blocks.append(Block(language.lower(), number + 1, "\n".join(code) + "\n"))
    return blocks, "\n".join(prose)


def blocks_of_page(page: Path) -> list[Block]:
    """A page's fenced blocks, in their order."""
    return _parse(page.read_text("utf-8"))[0]


def blocks_of(page: Path, language: str = "python") -> list[Block]:
    """A page's fenced blocks in one language, in their order."""
    return [block for block in blocks_of_page(page) if block.language == language]


def missing_tests(markdown: str) -> Iterator[str]:
    """The tests that a page names and that do not exist."""
    for file, name in _find_named_tests(markdown):
        path = ROOT / file
        if not path.is_file() or name not in _tests_in(path):
            yield f"{file}::{name}"


@cache
def _tests_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"), path)
    return {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}


def dead_links(markdown: str, folder: Path) -> Iterator[str]:
    """The relative links of a page in `folder` that lead nowhere."""
    prose = _drop_code("", _parse(markdown)[1])
    for targets in _find_links(prose):
        target = "".join(targets)
        path = target.partition("#")[0].partition("?")[0]
        if path and not _is_address(target) and not (folder / path).exists():
            yield target


def broken_blocks(markdown: str) -> Iterator[str]:
    """The Python blocks that do not compile; `await` may stand outside of functions."""
    for block in _parse(markdown)[0]:
        if block.language == "python":
            try:
                compile(block.text, "block", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
            except SyntaxError as error:
                yield f"line {block.line + (error.lineno or 1) - 1}: {error.msg}"


def _name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def _check(page: Path, find: Callable[[str], Iterator[str]], what: str) -> None:
    problems = list(find(page.read_text("utf-8")))
    assert not problems, f"{_name_of(page)} {what}: {', '.join(problems)}"


@pytest.mark.parametrize("page", PAGES, ids=_name_of)
def test_tests_named_in_a_page_exist(page: Path) -> None:
    """Where a page says that a test proves something, there is that test."""
    _check(page, missing_tests, "names tests that do not exist")


@pytest.mark.parametrize("page", PAGES, ids=_name_of)
def test_links_lead_somewhere(page: Path) -> None:
    """A relative link leads to a file or folder of this repository."""
    _check(page, lambda markdown: dead_links(markdown, page.parent), "has dead links")


@pytest.mark.parametrize("page", PAGES, ids=_name_of)
def test_python_in_a_page_compiles(page: Path) -> None:
    """What is marked as Python can be pasted into a file."""
    _check(page, broken_blocks, "has Python that does not compile")


def test_the_reference_has_every_public_name() -> None:
    """Whatever a front door shows is described on a page of docs/reference."""
    pages = (page.read_text("utf-8") for page in (ROOT / "docs" / "reference").glob("*.md"))
    described = [_at(*path.rpartition(".")[::2]) for text in pages for path in _find_described(text)]
    missing = [
        f"{door}.{name}"
        for door in DOORS
        for name in import_module(door).__all__
        if not any(_at(door, name) is thing for thing in described)
    ]
    assert not missing, f"no page of docs/reference has an `.. autoclass::` (or autofunction, …) of {missing}"


def _at(module: str, name: str) -> object:
    return getattr(import_module(module), name)


SAMPLE = """\
[A](docs), ![a picture](no/picture.png), [titled](<nowhere.md> "Nowhere"), [an anchor](nowhere.md#here), [here](#here)
```not a fence```, [web](https://example.com/no.md), [mail](mailto:me@example.com), [ref]
`[code](code.md)`, ``[`code`](code.md)``
<a href="no/page.html">, tests/test_docs.py::test_python_in_a_page_compiles, `tests/test_docs.py::test_of_nothing[a]`
tests/no_file.py::test_x

[ref]: no/ref.md

```python
async with a as b:
    await b["c"](d)
```

- in a list:

  ~~~python title="x"
  x = 1
  return x
  ~~~

````text
[fenced](fenced.md)
```python
1 +
```
````
"""


def test_bad_pages_are_found_out() -> None:
    """Each kind of broken promise is seen, and nothing that only looks like one."""
    assert list(missing_tests(SAMPLE)) == ["tests/test_docs.py::test_of_nothing", "tests/no_file.py::test_x"]
    assert list(dead_links(SAMPLE, ROOT)) == [
        "no/picture.png",
        "nowhere.md",
        "nowhere.md#here",
        "no/page.html",
        "no/ref.md",
    ]
    assert list(broken_blocks(SAMPLE)) == ["line 18: 'return' outside function"]
    with pytest.raises(ValueError, match="line 2 is never closed"):
        _parse("a\n```python\nb\n")
