"""Request: Werkzeug's, plus a body that arrives while you wait for it, plus the session."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Literal, final, overload

import msgspec
import trio
from werkzeug.datastructures import CombinedMultiDict, FileStorage, MultiDict
from werkzeug.exceptions import (
    BadRequest,
    ClientDisconnected,
    HTTPException,
    RequestEntityTooLarge,
    RequestTimeout,
    UnsupportedMediaType,
)

from .._asgi import Receive, Scope
from ._connection import Connection
from ._forms import FormParts, parse_multipart, parse_query

__all__ = ["Request", "decode_json"]

_UNREAD = object()

_URLENCODED, _MULTIPART = "application/x-www-form-urlencoded", "multipart/form-data"


@final
class Request(Connection):
    """An HTTP request.

    `method path url args headers cookies remote_addr is_json mimetype …` are Werkzeug's, and never wait. The body
    has to be waited for:

        data = await request.get_json()
        form = await request.form

    Attributes:
        max_content_length: bytes of body that are read at most, else 413; None for no limit. Set it before you read.
        max_form_memory_size: bytes that the fields of a form may have together, else 413; files do not count.
        max_form_parts: how many fields and files a form may have, else 413.
        body_timeout: seconds that one call waits for the body, else 408; `inf` for no limit. `body` has none: put
            `with trio.fail_after(seconds):` around its loop, or into it.
    """

    # Quart's own, and so Flask's.
    max_content_length: int | None = 16 * 1024 * 1024
    max_form_memory_size: int | None = 500_000
    max_form_parts: int | None = 1_000
    body_timeout: float = 60.0

    def __init__(self, scope: Scope, receive: Receive) -> None:
        super().__init__(scope, receive)
        self._received = 0  # bytes
        self._ended = False  # the whole body was received
        self._chunks: list[bytes] = []  # read so far by get_data(), which may be cancelled and called again
        self._data: bytes | None = None
        self._json: object = _UNREAD
        self._form: FormParts | None = None
        self._reader: str | None = None  # who reads the body away, if it is not kept
        self._failure: HTTPException | None = None

    @overload
    async def get_data(
        self, *, cache: bool = True, as_text: Literal[False] = False, parse_form_data: bool = False
    ) -> bytes: ...
    @overload
    async def get_data(self, *, cache: bool = True, as_text: Literal[True], parse_form_data: bool = False) -> str: ...
    async def get_data(
        self, *, cache: bool = True, as_text: bool = False, parse_form_data: bool = False
    ) -> bytes | str:
        """The whole body.

        Args:
            cache: keep it, for the next call. Without, nobody gets it again.
            as_text: decode it, as UTF-8.
            parse_form_data: if it is a form, parse it, for `form` and `files`, and return nothing.

        Raises:
            RequestEntityTooLarge: it is longer than `max_content_length`. Unless you catch it, the client gets a 413.
            RequestTimeout: it has not come within `body_timeout`. Unless you catch it, the client gets a 408.
            BadRequest: it is not UTF-8. Unless you catch it, the client gets a 400.

        Cancellation: what has arrived is kept for the next call.
        """
        if parse_form_data and self.mimetype in {_URLENCODED, _MULTIPART}:
            await self._get_form()
            data = b""
        else:
            data = await self._get_bytes(cache=cache)
        if not as_text:
            return data
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise BadRequest("The body is not UTF-8.") from None

    @property
    def data(self) -> Awaitable[bytes]:
        """The whole body, or nothing if it is a form: `data = await request.data`. Raises as `get_data` does."""
        return self.get_data(parse_form_data=True)

    async def get_json(self, *, force: bool = False, silent: bool = False, cache: bool = True) -> Any:
        """The body, decoded from JSON. The same object each time.

        Args:
            force: whatever the content type says.
            silent: return None instead of raising 400 or 415.
            cache: keep the object, and the body, for the next call. Without, nobody gets them again.

        Raises:
            UnsupportedMediaType: the content type is not JSON. Unless you catch it, the client gets a 415.
            BadRequest: the body is not JSON. Unless you catch it, the client gets a 400.
            RequestEntityTooLarge, RequestTimeout: as `get_data`.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            if not (force or self.is_json):
                raise UnsupportedMediaType("The body has to be JSON, and its Content-Type application/json.")
            if cache and self._json is not _UNREAD:
                await trio.lowlevel.checkpoint()
                return self._json
            value = decode_json(await self._get_bytes(cache=cache))
            if not cache:
                return value
            if self._json is _UNREAD:  # another task may have been faster
                self._json = value
        except (UnsupportedMediaType, BadRequest):
            if silent:
                return None
            raise
        return self._json

    @property
    def json(self) -> Awaitable[Any]:
        """As `get_json`: `value = await request.json`."""
        return self.get_json()

    @property
    def form(self) -> Awaitable[MultiDict[str, str]]:
        """The fields of a form: `form = await request.form`. Empty, if the body is something else.

        Raises:
            BadRequest: the form is malformed, or not UTF-8. Unless you catch it, the client gets a 400.
            RequestEntityTooLarge: the body, or the fields, or their number pass a limit: 413.
            RequestTimeout: as `get_data`.
        """
        return self._get_fields()

    @property
    def files(self) -> Awaitable[MultiDict[str, FileStorage]]:
        """The files of a form: `files = await request.files`. They are closed when the request is over.

        A file's methods block: `await trio.to_thread.run_sync(file.save, path)`. Raises as `form` does.
        """
        return self._get_files()

    @property
    def values(self) -> Awaitable[CombinedMultiDict[str, str]]:
        """`args`, and behind them the fields of the form, unless this is a GET: `values = await request.values`.

        Raises as `args` and `form` do.
        """
        return self._get_values()

    @property
    def body(self) -> AsyncIterator[bytes]:
        """The body as it arrives: `async for chunk in request.body`. Nothing is kept.

        Raises:
            RequestEntityTooLarge: as `get_data`.
        """
        return _BodyStream(self)

    async def _get_fields(self) -> MultiDict[str, str]:
        return (await self._get_form()).fields

    async def _get_files(self) -> MultiDict[str, FileStorage]:
        return (await self._get_form()).files

    async def _get_values(self) -> CombinedMultiDict[str, str]:
        if self.method == "GET":
            await trio.lowlevel.checkpoint()
            return CombinedMultiDict([self.args])
        return CombinedMultiDict([self.args, await self._get_fields()])

    async def _get_form(self) -> FormParts:
        async with self._reading:
            if self._form is None:
                with self._in_time():
                    if self.mimetype == _MULTIPART:
                        self._form = await self._read_multipart()
                    elif self.mimetype == _URLENCODED:
                        self._form = await self._read_urlencoded()
                    else:
                        self._form = FormParts()
            return self._form

    async def _read_urlencoded(self) -> FormParts:
        limit = self.max_form_memory_size
        if limit is not None and (self.content_length or 0) > limit:
            raise RequestEntityTooLarge
        data = await self._read_all()
        if limit is not None and len(data) > limit:
            raise RequestEntityTooLarge
        return FormParts(parse_query(data, what="The form", max_fields=self.max_form_parts))

    async def _read_multipart(self) -> FormParts:
        boundary = self.mimetype_params.get("boundary")
        if not boundary:
            raise BadRequest("The form does not say what separates its parts.")
        read = self._take_body("it was read as a form")
        try:
            return await parse_multipart(
                read, boundary, max_memory=self.max_form_memory_size, max_parts=self.max_form_parts
            )
        except HTTPException as error:
            self._failure = error
            raise

    @cached_property
    def _reading(self) -> trio.Lock:
        # Several tasks of a handler may ask for the body.
        return trio.Lock()

    @contextmanager
    def _in_time(self) -> Iterator[None]:
        with trio.move_on_after(self.body_timeout) as scope:
            yield
        if scope.cancelled_caught:
            raise RequestTimeout("The body of the request did not come in time.") from None

    async def _get_bytes(self, *, cache: bool) -> bytes:
        async with self._reading:
            with self._in_time():
                data = await self._read_all()
            if not cache:
                self._data = None
                self._reader = "it was read with cache=False"
            return data

    async def _read_all(self) -> bytes:
        if self._data is None:
            self._check_body()
            while chunk := await self._read():
                self._chunks.append(chunk)
            self._data = b"".join(self._chunks)
            self._chunks.clear()
        return self._data

    def _take_body(self, reader: str) -> Callable[[], Awaitable[bytes]]:
        """Give the body to one reader, who does not keep it; what was kept before is read first."""
        if self._data is None:
            self._check_body()
            self._reader = reader
        kept = self._chunks if self._data is None else [self._data]
        known = iter([b"".join(kept)])

        async def read() -> bytes:
            return next(known, b"") or (b"" if self._data is not None else await self._read())

        return read

    def _check_body(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._reader is not None:
            raise RuntimeError(f"the body of this request is gone: {self._reader}")

    async def _read(self) -> bytes:
        """The next bytes of the body; none at its end."""
        if self._received == 0 and not self._ended:
            self._check_length(self.content_length or 0)
        while not self._ended:
            message = await self._receive()
            if message["type"] != "http.request":
                self._fail(ClientDisconnected())
            chunk: bytes = message.get("body", b"")
            self._ended = not message.get("more_body", False)
            self._received += len(chunk)
            self._check_length(self._received)
            if chunk:
                return chunk
        return b""

    def _check_length(self, length: int) -> None:
        if self.max_content_length is not None and length > self.max_content_length:
            self._fail(RequestEntityTooLarge())

    def _fail(self, error: HTTPException) -> None:
        # Part of the body is lost: whoever asks again must not take the rest for all of it.
        self._failure = error
        raise error

    def _close(self) -> None:
        if self._form is not None:
            self._form.close()


@final
class _BodyStream:
    """`request.body`."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._read: Callable[[], Awaitable[bytes]] | None = None

    def __aiter__(self) -> _BodyStream:
        return self

    async def __anext__(self) -> bytes:
        async with self._request._reading:
            if self._read is None:
                self._read = self._request._take_body("it was read as a stream")
            chunk = await self._read()
        if not chunk:
            raise StopAsyncIteration
        return chunk


def decode_json(data: bytes | str) -> Any:
    """Decode strict JSON.

    Raises:
        BadRequest: it is none, or has numbers that Python does not, or is nested too deeply.
    """
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise BadRequest("This is not JSON.") from None
