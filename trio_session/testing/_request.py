"""ClientRequest: what a call like `client.post("/login", json={...})` puts on the wire, and the scope made of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self, TypedDict, cast, final
from urllib.parse import SplitResult, quote, unquote, urlencode, urljoin, urlsplit

import h11

from .._asgi import Scope
from ._errors import decode, encode

__all__ = ["ClientRequest", "Fields", "HeaderFields", "StreamOptions", "resolve", "to_pairs"]

#: Names and values for a query or a form; a list of values repeats the name.
Fields = Mapping[str, object] | Sequence[tuple[str, object]]

#: Header names and values; only pairs can repeat a name.
HeaderFields = Mapping[str, str] | Iterable[tuple[str, str]]

# What may stand unquoted in a request target (RFC 3986); a % is taken for quoting that was done already.
_PATH_SAFE = "/%:@!$&'()*+,;=~"
_QUERY_SAFE = f"{_PATH_SAFE}?"

_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}
_LOOPBACK = "127.0.0.1"
_CLIENT_PORT = 49152  # the first of the ports for clients (RFC 6335, 6)


class StreamOptions(TypedDict, total=False):
    """What a request may carry.

    Attributes:
        params: added to the path's own query.
        headers: in place of the client's of the same name; a Cookie header in place of the jar's.
        json: any value but None, sent as JSON.
        data: sent as a form.
        content: sent as it is; of an iterable each chunk is one `http.request` message.
        cookies: for this request only, in place of the jar's of the same name.
    """

    params: Fields | None
    headers: HeaderFields | None
    json: Any
    data: Fields | None
    content: bytes | Iterable[bytes] | None
    cookies: Mapping[str, str] | None


@final
@dataclass(frozen=True, slots=True)
class ClientRequest:
    """One request, before the cookie jar has a look at it: that is done for each one anew.

    Attributes:
        headers: those of the caller and the client.
        body: the chunks, without empty ones.
        body_headers: what the body says about itself.
        cookies: those of this request only.
    """

    method: str
    url: SplitResult
    headers: tuple[tuple[str, str], ...] = ()
    body: tuple[bytes, ...] = ()
    body_headers: tuple[tuple[str, str], ...] = ()
    cookies: Mapping[str, str] | None = None

    @classmethod
    def build(cls, method: str, base_url: str, path: str, client_headers: HeaderFields, options: StreamOptions) -> Self:
        """Make a request of what the caller gave.

        Raises:
            TypeError: more than one kind of body.
            ValueError: the path is neither a path nor a URL.
        """
        url = resolve(base_url, path)
        params = options.get("params")
        if params:
            query = urlencode(params, doseq=True)
            url = url._replace(query=f"{url.query}&{query}" if url.query else query)
        body, body_headers = _body(method.upper(), options)
        return cls(
            method=method.upper(),
            url=url,
            headers=tuple(_layered(to_pairs(client_headers), to_pairs(options.get("headers") or ()))),
            body=tuple(chunk for chunk in body if chunk),
            body_headers=tuple(body_headers),
            cookies=options.get("cookies"),
        )

    def redirected(self, status: int, location: str) -> Self:
        """The request a browser makes after this answer (the Fetch standard, "HTTP-redirect fetch")."""
        url = resolve(self.url.geturl(), urljoin(self.url.geturl(), location))
        if (status == 303 and self.method != "HEAD") or (status in {301, 302} and self.method == "POST"):
            return replace(self, url=url, method="GET", body=(), body_headers=())
        return replace(self, url=url)

    def scope(
        self,
        kind: Literal["http", "websocket"],
        *,
        cookie: str | None,
        state: dict[str, Any],
        root_path: str,
        extra_headers: Iterable[tuple[str, str]] = (),
    ) -> Scope:
        """The scope Hypercorn makes of this request. h11 checks and normalises the headers, as it does there."""
        url = self.url
        raw_path = quote(url.path or "/", safe=_PATH_SAFE).encode("ascii")
        query = quote(url.query, safe=_QUERY_SAFE).encode("ascii")
        own = [("host", url.netloc.rpartition("@")[2].lower()), ("user-agent", "trio_session.testing")]
        if cookie is not None:
            own.append(("cookie", cookie))
        headers = _layered([*own, *extra_headers, *self.body_headers], self.headers)
        request = h11.Request(
            method=self.method,
            target=raw_path + b"?" + query if query else raw_path,
            headers=[(encode(name), encode(value)) for name, value in headers],
        )
        scope: Scope = {
            "type": kind,
            "asgi": {"spec_version": "2.1" if kind == "http" else "2.3", "version": "3.0"},
            "scheme": url.scheme,
            "http_version": "1.1",
            "path": unquote(raw_path.decode("ascii")),
            "raw_path": raw_path,
            "query_string": query,
            "root_path": root_path,
            "headers": list(request.headers),
            "client": (_LOOPBACK, _CLIENT_PORT),
            "server": (_LOOPBACK, url.port or _PORTS[url.scheme]),
            "state": state.copy(),
            "extensions": {},
        }
        if kind == "http":
            scope["method"] = decode(request.method)
        return scope


def resolve(base_url: str, path: str) -> SplitResult:
    """The URL of a path on the client's own host, or of another host if `path` is a whole URL."""
    if path.startswith("/"):
        # Not urljoin: a test may well want to send `//` and `/../` as they are.
        base = urlsplit(base_url)
        path, _, query = path.partition("#")[0].partition("?")
        return base._replace(path=path, query=query, fragment="")
    url = urlsplit(path)
    if url.scheme not in _PORTS or not url.hostname:
        raise ValueError("a path starts with `/`; anything else must be a whole URL: http, https, ws or wss")
    return url._replace(fragment="")


def _body(method: str, options: StreamOptions) -> tuple[Iterable[bytes], list[tuple[str, str]]]:
    json_value, data, content = options.get("json"), options.get("data"), options.get("content")
    if sum(given is not None for given in (json_value, data, content)) > 1:
        raise TypeError("a request has one body: json, data or content")
    kind: str | None = None
    if json_value is not None:
        kind = "application/json"
        content = json.dumps(json_value, ensure_ascii=False, separators=(",", ":")).encode()
    elif data is not None:
        kind = "application/x-www-form-urlencoded"
        content = urlencode(data, doseq=True).encode("ascii")
    if content is None:
        # Browsers say so when a method that usually has a body has none (RFC 9110, 8.6).
        return (), [("content-length", "0")] if method in {"POST", "PUT", "PATCH"} else []
    if not isinstance(content, bytes):
        return content, [("transfer-encoding", "chunked")]
    headers = [("content-length", str(len(content)))]
    if kind is not None:
        headers.append(("content-type", kind))
    return (content,), headers


def to_pairs(headers: HeaderFields) -> list[tuple[str, str]]:
    """Header fields as pairs, however they were given."""
    if isinstance(headers, Mapping):
        return list(cast("Mapping[str, str]", headers).items())
    return list(headers)


def _layered(*layers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Headers of which a later layer replaces those of the same name in the earlier ones."""
    headers: list[tuple[str, str]] = []
    for layer in layers:
        pairs = list(layer)
        names = {name.lower() for name, _ in pairs}
        headers = [(name, value) for name, value in headers if name.lower() not in names] + pairs
    return headers
