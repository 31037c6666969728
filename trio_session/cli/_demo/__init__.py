"""The demo: a page on which a visitor sees who has their session's lock, and updates getting lost without it.

_app.py        its application; what is in the folder page runs in the browser
_timeline.py   an instrument: what happens to the locks of this process
_bus.py        from there to every page, whichever process serves it
_holder.py     somebody who holds the lock until told otherwise, or until they die
_server.py     a Redis server, if one is wanted
"""

from __future__ import annotations

from ._app import make_app as make_app
from ._server import NoServerError as NoServerError, running_server as running_server

__all__ = ["NoServerError", "make_app", "running_server"]
