"""Serve an application with Hypercorn's trio worker, its traps closed: `trio-session serve`, in Python.

_run.py           a program that does nothing else: signals, one process or several (_processes.py, _worker.py)
_loading.py       the application that a name leads to, or what is wrong with that name
_server.py        one server in this trio run, its sockets, its end; and what to do with an unknown Hypercorn
_lifespan.py      the application's start and end, and what may go wrong with it
_application.py   what a client is told when the server stops
_connection.py    one connection (_protocols.py: HTTP as Hypercorn speaks it; _tasks.py: the application's tasks)
"""

from __future__ import annotations

from ._lifespan import (
    AddressError as AddressError,
    BreakdownError as BreakdownError,
    ServingError as ServingError,
    StartupError as StartupError,
)
from ._run import run as run
from ._server import serve as serve

__all__ = ["AddressError", "BreakdownError", "ServingError", "StartupError", "run", "serve"]
