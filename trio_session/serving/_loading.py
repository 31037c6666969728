"""From `module:app` to an application, or to the one thing about that name that is wrong.

The names are Hypercorn's: a module or a file, then an expression in it, and `asgi:` or `wsgi:` in front if need be. But
it says little about a name that is wrong, and takes whatever is no application for one of WSGI.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from importlib import import_module
from inspect import isclass, signature
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from hypercorn.config import Config
from hypercorn.typing import AppWrapper
from hypercorn.utils import is_asgi as looks_asynchronous, wrap_app

from ._lifespan import StartupError

__all__ = ["load_by_name"]

_WSGI_ARGUMENTS: Final = ("environ", "start_response")
_ASGI_ARGUMENTS: Final = ("scope", "receive", "send")

# What tracebacks call these files: ours, the expression, and how Python imports.
_EXPRESSION: Final = "<application>"
_MACHINERY: Final = (__file__, _EXPRESSION, "<frozen importlib", import_module.__code__.co_filename)


def load_by_name(name: str, config: Config) -> AppWrapper:
    """The application of this name, as Hypercorn calls it.

    Raises:
        StartupError: there is none. If it was code of the application's that failed, its error is the cause.
    """
    first, _, rest = name.partition(":")
    given = first if first in {"asgi", "wsgi"} and ":" in rest else None
    place, _, expression = (rest if given else name).partition(":")
    if not place:
        raise StartupError(f"{name!r} does not say where the application is: write MODULE:APP, like app:app")
    module, expression = _import(place), expression or "app"
    app = _evaluate(expression, module)
    is_wsgi = given == "wsgi" or (given is None and not _is_asynchronous(app) and _takes(app, _WSGI_ARGUMENTS))
    if not is_wsgi and not _is_application(app):
        what = _what_it_is(app, f"{place}:{expression}")
        raise StartupError(f"{expression!r} in {_where(module)} is no application: {what}")
    return wrap_app(app, config.wsgi_max_body_size, "wsgi" if is_wsgi else "asgi")


# -- the module --------------------------------------------------------------------------------------------------------


def _import(place: str) -> ModuleType:
    path = Path(place).resolve()
    name = path.stem if path.is_file() else path.name
    if place.endswith(".py") and not path.is_file():
        others = [each.name for each in path.parent.glob("*.py")]
        raise StartupError(f"there is no file {path}{_or_is_it(path.name, others)}")
    sys.path.insert(0, str(path.parent))  # as Hypercorn does, and `python -m`
    try:
        return import_module(name)
    except Exception as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is None or not f"{name}.".startswith(f"{missing}."):
            raise _failed(error) from error
    hint = _or_is_it(missing, [each.stem for each in path.parent.glob("*.py")])
    raise StartupError(f"there is no module {missing!r} in {path.parent}, nor where else Python looks{hint}")


# -- the application in it ---------------------------------------------------------------------------------------------


def _evaluate(expression: str, module: ModuleType) -> Any:
    try:
        code = compile(expression, _EXPRESSION, "eval")
    except SyntaxError:
        raise StartupError(f"{expression!r} names no application: write MODULE:APP, like app:app") from None
    try:
        return eval(code, vars(module))  # noqa: S307 - it is the command of whoever starts the server
    except NameError as error:
        if not _is_of_the_expression(error):
            raise _failed(error) from error
        missing = str(error.name)
    except Exception as error:
        raise _failed(error) from error
    known = {name: value for name, value in vars(module).items() if not name.startswith("_") and not isclass(value)}
    # Nothing is called like that: then whatever could be served, be its name like it or not.
    some = (name for name, value in known.items() if _is_asynchronous(value) and _is_application(value))
    hint = _or_is_it(missing, known) or _or_is_it(missing, some, likeness=0.0)
    raise StartupError(f"there is no {missing!r} in {_where(module)}{hint}")


# What is asked may be anything: Flask's `request`, which raises whatever one wants to know of it outside of a request.


def _is_asynchronous(app: Any) -> bool:
    try:
        return looks_asynchronous(app)
    except Exception:  # noqa: BLE001
        return False


def _takes(app: Any, arguments: Sequence[str]) -> bool:
    """Whether it can be called with so many."""
    try:
        signature(app).bind(*arguments)
    except ValueError:  # it does not tell
        return True
    except Exception:  # noqa: BLE001
        return False
    return True


def _is_application(app: Any) -> bool:
    """Whether it looks like one of ASGI. A class that makes them does not."""
    return _takes(app, _ASGI_ARGUMENTS) and not (isclass(app) and _is_asynchronous(app))


def _what_it_is(app: Any, name: str) -> str:
    if isclass(app):
        return "it is a class; name an instance of it"
    if not callable(app):
        return f"it is of type {type(app).__name__}"
    if _takes(app, ()):
        return f"it takes no arguments; if it makes one, write {name}()"
    return f"it cannot be called with {', '.join(_ASGI_ARGUMENTS)}"


# -- what is said about it ---------------------------------------------------------------------------------------------


def _where(module: ModuleType) -> str:
    return getattr(module, "__file__", None) or module.__name__


def _or_is_it(missing: str, names: Iterable[str], likeness: float = 0.6) -> str:
    near = get_close_matches(missing, names, 1, likeness)
    return f"; did you mean {near[0]!r}?" if near else ""


def _is_of_the_expression(error: Exception) -> bool:
    """Whether it was raised there, and not in what was called there."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_code.co_filename == _EXPRESSION


def _failed(error: Exception) -> StartupError:
    """Code of the application's failed: of its traceback only that part is of interest."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_MACHINERY):
        trace = trace.tb_next
    error.__traceback__ = trace
    return StartupError(f"{type(error).__name__}: {error}")
