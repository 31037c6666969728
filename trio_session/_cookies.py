"""Cookies as bytes: finding ours in a request, setting and removing it in a response."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import final

from ._config import SessionConfig

_Header = tuple[bytes, bytes]

# 400 days: what browsers make of anything longer (RFC 6265bis 5.5), and so our "for ever".
_LONGEST_MAX_AGE = 34_560_000  # seconds

_BLANK = b" \t"

# The directives of a Cache-Control value: a comma inside quotes does not separate.
_find_directives = re.compile(rb'(?:"(?:[^"\\]|\\.)*"|[^,])+', re.DOTALL).findall


def candidate_ids(headers: Iterable[_Header], name: str) -> list[str]:
    """All values of cookies called `name`, in the order sent, each once. Never raises.

    There can be several: browsers send the cookies of all matching paths and domains, and a
    neighbouring subdomain may have planted one. HTTP/3 brings several cookie headers.

    A scan by hand, because `http.cookies.SimpleCookie` loses good cookies that stand beside odd
    ones (cpython#127195): any program on the same host could log our users out by accident.
    """
    wanted = name.encode()
    found: dict[str, None] = {}
    for header, line in headers:
        if header != b"cookie" or wanted not in line:
            continue
        for pair in line.split(b";"):
            key, equals, value = pair.partition(b"=")
            if not equals or key.strip(_BLANK) != wanted:
                continue
            value = value.strip(_BLANK)
            if len(value) >= 2 and value.startswith(b'"') and value.endswith(b'"'):
                value = value[1:-1]
            if value.isascii():
                found[value.decode("ascii")] = None
    return list(found)


@final
class SessionCookie:
    """The Set-Cookie values of one configuration, built once: what is left is to put an id in."""

    def __init__(self, config: SessionConfig) -> None:
        self.name = config.resolved_cookie_name
        # Browsers refuse a cross-site or partitioned cookie that is not secure; "auto" cannot mean
        # that it should be lost.
        must_be_secure = config.same_site == "None" or config.partitioned
        self._https_tail = _attributes(config, secure=config.secure is not False)
        self._plain_tail = _attributes(config, secure=config.secure is True or must_be_secure)
        self._head = f"{self.name}=".encode("ascii")
        # At least 1, as Max-Age=0 removes the cookie.
        max_age = max(1, int(min(config.lifetime, _LONGEST_MAX_AGE)))
        self._max_age = f"; Max-Age={max_age}".encode("ascii")

    def issue(self, id: str, *, https: bool) -> bytes:
        """The Set-Cookie value that gives the browser `id` for one lifetime from now."""
        tail = self._https_tail if https else self._plain_tail
        return self._head + id.encode("ascii") + self._max_age + tail

    def remove(self, *, https: bool) -> bytes:
        """The Set-Cookie value that takes the cookie away.

        With the attributes it was set with, or the browser would take it for another cookie.
        """
        tail = self._https_tail if https else self._plain_tail
        return self._head + b"; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT" + tail


def _attributes(config: SessionConfig, *, secure: bool) -> bytes:
    parts = ["", f"Path={config.path}"]
    if config.domain is not None:
        parts.append(f"Domain={config.domain}")
    if secure:
        parts.append("Secure")
    if config.http_only:
        parts.append("HttpOnly")
    parts.append(f"SameSite={config.same_site}")
    if config.partitioned:
        parts.append("Partitioned")
    return "; ".join(parts).encode("ascii")


def with_cookie(headers: Iterable[_Header], set_cookie: bytes) -> list[_Header]:
    """The headers with one Set-Cookie more, and kept out of shared caches.

    A cache that handed this response to somebody else would hand them the session. So `public` is
    taken out of Cache-Control, and `private` is added unless it or `no-store` is there.
    """
    result: list[_Header] = []
    is_private = False
    last: int | None = None  # where the last Cache-Control of `result` is
    for name, value in headers:
        if name.lower() == b"cache-control":
            directives = [found.strip(_BLANK) for found in _find_directives(value)]
            lower = [directive.lower() for directive in directives]
            # Whole directives: private="X-Name" is about that one header, not about the response.
            is_private = is_private or b"private" in lower or b"no-store" in lower
            if b"public" in lower:
                value = b", ".join(d for d in directives if d.lower() != b"public")
            if not value.strip(_BLANK):
                continue
            last = len(result)
        result.append((name, value))
    if not is_private:
        _append_to(result, last, b"cache-control", b"private")
    result.append((b"set-cookie", set_cookie))
    return result


def with_vary(headers: Iterable[_Header]) -> list[_Header]:
    """The headers with Cookie in Vary, so that caches keep one user's answers from another."""
    result: list[_Header] = []
    last: int | None = None
    known: set[bytes] = set()
    for name, value in headers:
        if name.lower() == b"vary":
            known.update(field.strip(_BLANK) for field in value.lower().split(b","))
            if not value.strip(_BLANK):
                continue
            last = len(result)
        result.append((name, value))
    if known.isdisjoint((b"cookie", b"*")):
        _append_to(result, last, b"vary", b"Cookie")
    return result


def _append_to(headers: list[_Header], index: int | None, name: bytes, item: bytes) -> None:
    """Add an item to the list header at `index`, or a new header if there is none."""
    if index is None:
        headers.append((name, item))
    else:
        found, value = headers[index]
        headers[index] = (found, value + b", " + item)
