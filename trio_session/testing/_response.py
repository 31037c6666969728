"""What a test client hands out for a response: all of it, or its start and the chunks as they come."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, Self, final

from werkzeug.datastructures import Headers
from werkzeug.http import parse_options_header

from ._errors import ResponseStatusError
from ._http import HttpExchange

__all__ = ["ClientResponse", "StreamedResponse"]


class _Response:
    def __init__(self, status_code: int, headers: Headers, url: str, cookies: Mapping[str, str]) -> None:
        #: The status.
        self.status_code = status_code
        #: The headers: case-insensitive, with `getlist` for those that come several times.
        self.headers = headers
        #: The URL that answered, after redirects.
        self.url = url
        #: The cookies of this response that a browser would keep; `client.cookies` has them all.
        self.cookies = cookies

    def raise_for_status(self) -> Self:
        """Return the response, unless its status is 400 or above.

        Raises:
            ResponseStatusError: it is.
        """
        if self.status_code >= 400:
            raise ResponseStatusError(self.status_code, self.url)
        return self

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.status_code} {self.url}>"


@final
class ClientResponse(_Response):
    """A complete response; the application has ended as well.

    Attributes:
        status_code: the status.
        headers: case-insensitive, with `getlist` for those that come several times.
        content: the body.
        cookies: those of this response that a browser would keep.
        url: what answered, after redirects.
    """

    def __init__(
        self, status_code: int, headers: Headers, url: str, cookies: Mapping[str, str], content: bytes
    ) -> None:
        super().__init__(status_code, headers, url, cookies)
        self.content = content

    @property
    def text(self) -> str:
        """The body as text, by the charset of its Content-Type, else UTF-8."""
        charset = parse_options_header(self.headers.get("content-type"))[1].get("charset", "utf-8")
        try:
            return self.content.decode(charset, "replace")
        except LookupError:
            return self.content.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body as JSON, whatever its Content-Type says.

        Raises:
            ValueError: it is not JSON.
        """
        return json.loads(self.content)


@final
class StreamedResponse(_Response):
    """A response that has started; its body comes as the application sends it.

    Attributes:
        status_code: the status.
        headers: case-insensitive, with `getlist` for those that come several times.
        cookies: those of this response that a browser would keep.
        url: what answers.
    """

    def __init__(
        self, status_code: int, headers: Headers, url: str, cookies: Mapping[str, str], exchange: HttpExchange
    ) -> None:
        super().__init__(status_code, headers, url, cookies)
        self._exchange = exchange

    def chunks(self) -> AsyncIterator[bytes]:
        """Iterate over what is left of the body, one chunk for each message of the application.

        Raises:
            Exception: the application's own.
            trio.BrokenResourceError: the application ended in the middle of its response.
        """
        return _Chunks(self._exchange)

    async def read(self) -> bytes:
        """Wait for what is left of the body. Raises as `chunks` does."""
        return b"".join([chunk async for chunk in self.chunks()])


class _Chunks(AsyncIterator[bytes]):
    """Not a generator: that would have to be closed when the reader leaves early."""

    def __init__(self, exchange: HttpExchange) -> None:
        self._exchange = exchange

    async def __anext__(self) -> bytes:
        chunk = await self._exchange.next_chunk()
        if chunk is None:
            raise StopAsyncIteration
        return chunk
