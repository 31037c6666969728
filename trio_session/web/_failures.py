"""From exceptions to responses."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, final

from werkzeug.exceptions import Conflict, HTTPException, InternalServerError, ServiceUnavailable
from werkzeug.sansio.response import Response as SansIOResponse

from .._errors import (
    CommittedNotReplicatedError,
    CommitUnknownError,
    LockLostError,
    LockTimeoutError,
    SessionBusyError,
    SessionEndedError,
    StorageUnavailableError,
)
from ._request import Request
from ._response import Response, ResponseValue, make_response

__all__ = ["ErrorHandler", "Failures", "http_error_of", "lone_exception", "plain_response"]

logger = logging.getLogger("trio_session.web")

ErrorHandler = Callable[[Request, Any], Awaitable[ResponseValue]]

# What a client is told to wait. Locks are free again after fractions of a second, a store after some seconds.
_RETRY_AFTER = 1  # second


@final
class Failures:
    """The error handlers of an App."""

    def __init__(self) -> None:
        self._handlers: dict[int | type[Exception], ErrorHandler] = {}

    def add(self, key: int | type[Exception], handler: ErrorHandler) -> None:
        is_kind = isinstance(key, type) and issubclass(key, Exception)
        if not is_kind and not isinstance(key, int):
            raise TypeError(f"an error handler is for a status or a kind of Exception, not for {key!r}")
        self._handlers[key] = handler

    async def answer(self, request: Request, error: Exception) -> Response:
        """The response to an exception. Never raises an `Exception` itself."""
        try:
            return await self._answer(request, error)
        except Exception as worse:
            # A handler may abort() to another page, but there is no handling of what went wrong in handling.
            wrong = lone_exception(worse)
            if not isinstance(wrong, HTTPException):
                logger.exception("the error handler for %s %r failed", request.method, request.path, exc_info=worse)
            return plain_response(http_error_of(wrong))

    async def _answer(self, request: Request, raised: Exception) -> Response:
        error = lone_exception(raised)
        if isinstance(error, HTTPException) and error.response is not None:
            return plain_response(error)
        http_error = http_error_of(error)
        handler = None
        if http_error is not error:
            handler = self._by_kind(error)
            if handler is not None:
                return make_response(await handler(request, error))
            _log(request, raised, http_error)
        handler = self._handlers.get(http_error.code or 500) or self._by_kind(http_error)
        if handler is not None:
            return make_response(await handler(request, http_error))
        return plain_response(http_error)

    def _by_kind(self, error: Exception) -> ErrorHandler | None:
        for kind in type(error).__mro__:
            if kind in self._handlers:
                return self._handlers[kind]
        return None


def lone_exception(error: Exception) -> Exception:
    """What a nursery has wrapped: `abort(404)` means the same in one as outside. Two exceptions stay a group."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def http_error_of(error: Exception) -> HTTPException:
    """The HTTP error that an exception amounts to, with the exception as its cause."""
    wrapped: HTTPException
    match error:
        case HTTPException():
            return error
        case StorageUnavailableError() | LockTimeoutError() | LockLostError() | SessionBusyError():
            wrapped = ServiceUnavailable(retry_after=_RETRY_AFTER)
        case CommitUnknownError() | CommittedNotReplicatedError():
            # Nobody should be told to do again what may have been done, or has been.
            wrapped = ServiceUnavailable()
        case SessionEndedError():
            wrapped = Conflict("Your session has ended in the meantime.")
        case _:
            wrapped = InternalServerError(original_exception=error)
    wrapped.__cause__ = error
    return wrapped


def plain_response(error: HTTPException) -> Response:
    """The response of an HTTP error without any error handler: Werkzeug's short page."""
    given: SansIOResponse | None = error.response
    if isinstance(given, Response):
        return given
    if given is not None:  # one of Werkzeug's own, from a library
        get_data: Callable[[], bytes] = getattr(given, "get_data", bytes)
        return Response(get_data(), given.status_code, given.headers)
    return Response(error.get_body(), error.code or 500, error.get_headers())


def _log(request: Request, error: Exception, http_error: HTTPException) -> None:
    if http_error.code == 500:
        logger.error("the handler for %s %r failed", request.method, request.path, exc_info=error)
    else:
        # Expected now and then, and explained by its message: without a traceback. A store that is away has said so.
        reason = lone_exception(error)
        level = logging.INFO if isinstance(reason, StorageUnavailableError) else logging.WARNING
        logger.log(level, "%s %r is answered %s: %s", request.method, request.path, http_error.code, reason)
