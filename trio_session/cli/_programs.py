"""What the commands that serve have in common: every failure is one line, and has its exit code."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hypercorn.config import Config

    from ..serving._server import AnyApp

__all__ = ["complain", "serve_until_stopped"]


def serve_until_stopped(
    app: AnyApp | str, config: Config, *, announce: Callable[[Sequence[str]], object] | None = None
) -> int:
    """Serve until Ctrl-C or SIGTERM.

    Args:
        app: an application, or where to import it from.
        config: Hypercorn's settings.
        announce: is called with the URLs once the application has started.

    Returns:
        The exit code, as in `main`.
    """
    from ..serving import AddressError, BreakdownError, ServingError, StartupError, run

    try:
        run(app, config, announce=announce)
    except StartupError as error:
        if error.__cause__ is not None:  # its own code failed to be imported: only its traceback says where
            traceback.print_exception(error.__cause__)
        complain(f"the application could not start: {error}")
        return 3
    except BreakdownError as error:
        complain(f"the application broke down: {error}")
        return 4
    except AddressError as error:
        complain(str(error))
        return 1
    except ServingError as error:
        complain(str(error))
        return 2
    return 0


def complain(problem: str) -> None:
    """Say what is wrong, where errors are said."""
    print(f"trio-session: {problem}", file=sys.stderr, flush=True)
