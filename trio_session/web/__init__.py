"""A small web framework on Trio, in the manner of Quart, with sessions built in.

App             routes, hooks and background tasks; an ASGI application
Request         what a handler is given; HTTP
WebSocket       what a handler is given; WebSocket
Response        what a handler returns, or one of the shorter forms
HTTPException   what abort() raises; Werkzeug's
"""

from __future__ import annotations

from werkzeug.exceptions import HTTPException as HTTPException

from ._app import App as App
from ._request import Request as Request
from ._response import Response as Response, abort as abort, redirect as redirect
from ._websocket import WebSocket as WebSocket, WebSocketClosed as WebSocketClosed

__all__ = ["App", "HTTPException", "Request", "Response", "WebSocket", "WebSocketClosed", "abort", "redirect"]
