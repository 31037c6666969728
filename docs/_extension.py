"""What our pages need beyond what Sphinx brings.

- A docstring shows code as Markdown does, indented after an empty line; reStructuredText wants two colons before it.
- `Session.locked()` in a sentence becomes a link to where that is described, and stays readable on a forge.
- Names of Python and Trio lead to their documentation. The addresses follow from the names: nothing is fetched.
"""

from __future__ import annotations

import builtins
import re
import sys
from functools import cache
from importlib import import_module
from math import inf
from typing import TYPE_CHECKING, Any, Literal, cast

from docutils import nodes
from sphinx.ext import napoleon
from sphinx.ext.napoleon.docstring import GoogleDocstring
from sphinx.util.nodes import make_refnode
from werkzeug import exceptions

if TYPE_CHECKING:
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.config import Config
    from sphinx.environment import BuildEnvironment

PYTHON = "https://docs.python.org/3/library"
TRIO = "https://trio.readthedocs.io/en/stable"
HYPERCORN = "https://hypercorn.readthedocs.io/en/latest/reference/source"
WERKZEUG = "https://werkzeug.palletsprojects.com/en/stable"

# What our sentences call the objects that everybody calls so.
USUAL_NAMES = {
    "app": "App",
    "client": "ASGIClient",
    "config": "SessionConfig",
    "manager": "SessionManager",
    "request": "Request",
    "session": "Session",
    "trainer": "SessionTrainer",
    "ws": "WebSocket",
}

# What our docstrings have beside `Args`, `Raises` and the others.
SECTIONS = cast("Config", napoleon.Config(napoleon_custom_sections=["Cancellation", "Locking"]))

_match_name = re.compile(r"(?:await |async with )?((?:\w+\.)*\w+)(?:\(.*\))?$").match
_find_ours = re.compile(r"trio_session\.[\w.]+").findall


def read_docstring(app: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]) -> None:
    """Make reStructuredText of a docstring in Google's style."""
    _mark_code(lines)
    # As of a method: of a property or an attribute napoleon takes what stands before the first colon for its type.
    kind: Literal["class", "method"] = "class" if what in {"class", "exception"} else "method"
    lines[:] = GoogleDocstring(lines, SECTIONS, app, kind, name).lines()


def _mark_code(lines: list[str]) -> None:
    """Put two colons before indented code."""
    result: list[str] = []
    indent: float = 0  # of the paragraph before; of code infinite, as nothing in it is deeper
    code = 0
    for line in lines:
        here = len(line) - len(line.lstrip())
        if line.strip():
            if here > indent and not result[-1].strip():
                result += [" " * int(indent) + "::", ""]
                code, indent = here, inf
            elif indent < inf or here < code:
                indent = here
        result.append(line)
    lines[:] = result


def hide_private(
    _app: Sphinx, what: str, _name: str, _value: object, _options: object, signature: str | None, returns: str | None
) -> tuple[str, str | None] | None:
    """A class whose arguments are nothing a user can have shows none: somebody else makes its objects."""
    if what != "class" or signature is None:
        return None
    is_private = bool(set(_find_ours(signature)) - _public())
    return "" if is_private else signature.replace("<factory>", "{}"), returns


@cache
def _public() -> set[str]:
    """Where the things that the front doors show are really defined."""
    doors = [import_module(f"trio_session{room}") for room in ("", ".abc", ".redis", ".testing", ".web")]
    things = [getattr(door, name) for door in doors for name in door.__all__]
    return {f"{thing.__module__}.{thing.__qualname__}" for thing in things if isinstance(thing, type)}


def link_names(app: Sphinx, page: nodes.document, docname: str) -> None:
    """Make links of code in sentences that is the name of something described."""
    objects = app.env.domains.python_domain.objects
    for literal in list(page.findall(nodes.literal)):
        if isinstance(literal.parent, nodes.reference | nodes.title):
            continue
        found = _match_name(literal.astext())
        target = found and _find(objects, found[1])
        if target:
            entry = objects[target]
            link = make_refnode(app.builder, docname, entry.docname, entry.node_id, literal.deepcopy(), target)
            literal.replace_self(link)


def _find(objects: Any, name: str) -> str | None:
    """The full name of what a sentence calls `name`, if only one thing can be meant."""
    head, dot, rest = name.partition(".")
    if dot and head in USUAL_NAMES:
        name = f"{USUAL_NAMES[head]}.{rest}"
    elif not dot and not name[:1].isupper() and "_" not in name:
        return None  # a word that may be anything
    ends = {target for target in objects if target == name or target.endswith(f".{name}")}
    ends = {target for target in ends if objects[target].objtype != "module" and not objects[target].aliased}
    return ends.pop() if len(ends) == 1 else None


def link_outside(_app: Sphinx, _env: BuildEnvironment, node: pending_xref, content: nodes.Node) -> nodes.Node | None:
    """A link to a name of Python's or Trio's."""
    target = str(node.get("reftarget", ""))
    address = _address_of(target) if node.get("refdomain") == "py" else None
    if address is None:
        return None
    link = nodes.reference("", "", internal=False, refuri=address, reftitle=target)
    link += content
    return link


def _address_of(name: str) -> str | None:
    top, _, rest = name.partition(".")
    if name in vars(exceptions):
        return f"{WERKZEUG}/exceptions/#werkzeug.exceptions.{name}"
    if top == "werkzeug":
        room = rest.partition(".")[0]
        return f"{WERKZEUG}/{room if room in {'datastructures', 'routing'} else 'wrappers'}/#{name}"
    if top == "hypercorn":
        return f"{HYPERCORN}/{name.rpartition('.')[0]}.html#{name}"
    if top == "trio":
        page = {"abc": "io", "testing": "testing"}.get(rest.partition(".")[0], "core")
        return f"{TRIO}/reference-{page}.html#{name}"
    if isinstance(value := getattr(builtins, name, None), type):
        return f"{PYTHON}/{'exceptions' if issubclass(value, BaseException) else 'stdtypes'}.html#{name}"
    if hasattr(builtins, name):
        return f"{PYTHON}/constants.html#{name}"
    if top in sys.stdlib_module_names:
        return f"{PYTHON}/{name.rpartition('.')[0]}.html#{name}"
    return None


def setup(app: Sphinx) -> dict[str, Any]:
    """Tell Sphinx."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", read_docstring)
    app.connect("autodoc-process-signature", hide_private)
    app.connect("missing-reference", link_outside)
    app.connect("doctree-resolved", link_names)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
