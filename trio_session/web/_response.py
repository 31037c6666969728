"""Responses: what handlers return, made into what a server is sent."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping
from typing import Any, NoReturn, TypeAlias, cast

import msgspec
from werkzeug.datastructures import Headers
from werkzeug.exceptions import HTTPException, default_exceptions
from werkzeug.sansio.response import Response as SansIOResponse
from werkzeug.urls import iri_to_uri

from .._asgi import Message, Send
from ._streams import Chunk, close_stream, send_stream

__all__ = ["Body", "HeaderFields", "Response", "ResponseValue", "abort", "make_response", "redirect"]

Body: TypeAlias = Chunk | Mapping[str, object] | list[Any] | AsyncIterable[Chunk]
HeaderFields: TypeAlias = Mapping[str, str | Iterable[str]] | Iterable[tuple[str, str]]

_HTML = "text/html; charset=utf-8"
_BYTES = "application/octet-stream"
_JSON = "application/json"


class Response(SansIOResponse):
    """An HTTP response: Werkzeug's, with a body.

        Response("not yet", 202, {"Retry-After": "5"})

    The body decides the content type, unless you do: `str` is sent as HTML, `bytes` as `application/octet-stream`, a
    dict or a list as JSON. What an async iterator yields is streamed, as HTML.

    Args:
        body: what to send.
        status: from 200 to 599.
        headers: a mapping or pairs; those of the body are added.
        mimetype: the content type; `; charset=utf-8` is added to the textual ones.
        content_type: the whole content type.

    Raises:
        TypeError: nothing can be made of such a body, or JSON of such a value.
        ValueError: the status is not one of a response.
    """

    default_mimetype: str | None = None
    _stream: AsyncIterable[Chunk] | None = None

    def __init__(
        self,
        body: Body = b"",
        status: int = 200,
        headers: HeaderFields | None = None,
        *,
        mimetype: str | None = None,
        content_type: str | None = None,
    ) -> None:
        kind, self._data = _HTML, b""
        match body:
            case str():
                self._data = body.encode()
            case bytes() | bytearray() | memoryview():
                kind, self._data = _BYTES, bytes(body)
            case dict() | list() | Mapping():
                kind, self._data = _JSON, _to_json(body)
            case AsyncIterable():
                self._stream = body
            case _:
                raise TypeError(
                    f"{type(body).__name__} is no response: use str, bytes, dict, list, Response, an async iterator, "
                    "(body, status) or (body, status, headers)"
                )
        super().__init__(_checked(status), headers, mimetype, content_type)
        if "Content-Type" not in self.headers:
            self.headers["Content-Type"] = kind

    @property
    def data(self) -> bytes:
        """The body; set it to replace the body. A streamed one can only be replaced.

        Raises:
            RuntimeError: the response is streamed.
        """
        if self._stream is not None:
            raise RuntimeError("this response is streamed: its body is known only when it has been sent")
        return self._data

    @data.setter
    def data(self, body: Chunk) -> None:
        self._stream = None
        self._data = body.encode() if isinstance(body, str) else bytes(body)

    @property
    def is_streamed(self) -> bool:
        """Whether the body is an async iterator."""
        return self._stream is not None

    async def aclose(self) -> None:
        """Close the stream of a response that is not sent after all."""
        await close_stream(self._stream)

    def _start(self, *, head: bool = False) -> Message:
        """The message that starts the response. Changing the response afterwards has no effect.

        Args:
            head: it answers a HEAD: a handler may know the length of a body that it has not made.
        """
        headers = self.headers
        if self._is_bodiless:
            headers.remove("Content-Type")
            headers.remove("Content-Length")
        elif self._stream is None and (self._data or not head or "Content-Length" not in headers):
            headers["Content-Length"] = str(len(self._data))
        return {
            "type": "http.response.start",
            "status": self.status_code,
            "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers],
        }

    @property
    def _is_bodiless(self) -> bool:
        return self.status_code in {204, 304}

    async def _send(self, send: Send, start: Message, *, head: bool) -> None:
        """Send everything, and close the stream.

        Cancellation: the stream is closed; nothing is sent any more.
        """
        if self._stream is None:
            await send(start)
            body = b"" if head or self._is_bodiless else self._data
        else:
            await self._send_stream(self._stream, send, start, silent=head or self._is_bodiless)
            body = b""
        await send({"type": "http.response.body", "body": body, "more_body": False})

    async def _send_stream(self, stream: AsyncIterable[Chunk], send: Send, start: Message, *, silent: bool) -> None:
        async def send_chunk(chunk: bytes) -> None:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})

        iterator = aiter(stream)
        try:
            await send(start)
            if not silent:
                await send_stream(iterator, send_chunk)
        finally:
            await close_stream(iterator)


ResponseValue: TypeAlias = Body | Response | tuple[Body | Response, int] | tuple[Body | Response, int, HeaderFields]


def make_response(value: object) -> Response:
    """Make a response of what a handler returned.

    Raises:
        TypeError: nothing can be made of it.
    """
    if isinstance(value, Response):
        return value
    if not isinstance(value, tuple):
        return Response(cast("Body", value))  # it says itself what it takes
    match cast("tuple[object, ...]", value):
        case (body, int() as status):
            headers: HeaderFields = ()
        case (body, int() as status, given):
            headers = cast("HeaderFields", given)
        case _:
            raise TypeError("a tuple is (body, status) or (body, status, headers)")
    response = body if isinstance(body, Response) else Response(cast("Body", body))
    response.status_code = _checked(status)
    # By way of Headers, since its update() of plain pairs keeps only one Set-Cookie.
    response.headers.update(Headers(headers))
    return response


def redirect(location: str, status: int = 302) -> Response:
    """Send the client somewhere else: return `redirect("/login")`.

    Args:
        location: a path or a URL. Never one that a client chose: it would lead your visitors anywhere.
        status: 301, 302, 303, 307 or 308; 303 makes a GET of a POST, 307 and 308 keep the method.
    """
    if status not in {301, 302, 303, 307, 308}:
        raise ValueError(f"{status} is not the status of a redirect: use 301, 302, 303, 307 or 308")
    return Response("", status, {"Location": iri_to_uri(location)})


def abort(status: int | Response, description: str | None = None) -> NoReturn:
    """Stop handling the request and answer this: `abort(404)`, `abort(403, "Members only.")`.

    Args:
        status: from 400 to 599, or a whole response.
        description: shown to the client.

    Raises:
        HTTPException: always; `App` makes the response of it, by way of its error handlers.
    """
    if isinstance(status, Response):
        raise HTTPException(response=status)
    if not 400 <= status <= 599:
        raise ValueError(f"{status} is not the status of an error: return a response instead")
    if status in default_exceptions:
        raise default_exceptions[status](description=description)
    error = HTTPException(description)
    error.code = status
    raise error


def _checked(status: int) -> int:
    if not 200 <= status <= 599:
        raise ValueError(f"{status} is not the status of a response")
    return int(status)


def _to_json(value: object) -> bytes:
    return msgspec.json.encode(value, enc_hook=_to_encodable)


def _to_encodable(value: object) -> object:
    # A session's `data`, for one, is a mapping but no dict.
    if isinstance(value, Mapping):
        return dict(value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    raise TypeError(f"{type(value).__name__} cannot be made into JSON")
