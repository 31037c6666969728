"""CookieJar: keeps cookies as strictly as a browser does, so that a test notices a cookie no browser would keep.

The rules are those of RFC 6265bis, section 5, which is what browsers do. Left out on purpose: the list of public
suffixes (a domain without a dot counts as one) and the sending half of SameSite (every request of a test is same-site).
"""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from math import inf
from typing import Literal, final
from urllib.parse import SplitResult

import trio

__all__ = ["Cookie", "CookieJar"]

# RFC 6265bis 5.7: longer ones are ignored.
_MAX_PAIR = 4096  # octets of name and value together
_MAX_ATTRIBUTE = 1024  # octets of one attribute's value

# RFC 6265bis 5.5: no cookie lives longer.
_MAX_AGE = 400 * 24 * 3600  # seconds

_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_SECURE_SCHEMES = {"https", "wss"}
_SAME_SITE: dict[str, Literal["Lax", "Strict", "None"]] = {"lax": "Lax", "strict": "Strict", "none": "None"}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Cookie:
    """A cookie and its attributes, as `client.cookies.attributes(name)` shows them.

    Attributes:
        domain: the host, or the domain it was widened to.
        host_only: it goes to exactly this host: the server named no Domain.
        path: where it goes, and below.
        same_site: as the server said; None if it said nothing that is known.
        max_age: as the server said, in seconds.
        expires_at: when it expires, on trio's clock; `inf` if the browser's session is all that ends it.
    """

    name: str
    value: str
    domain: str
    host_only: bool = True
    path: str = "/"
    secure: bool = False
    http_only: bool = False
    same_site: Literal["Lax", "Strict", "None"] | None = None
    partitioned: bool = False
    max_age: int | None = None
    expires_at: float = inf


@final
class CookieJar(MutableMapping[str, str]):
    """The cookies of a test client: a mapping of names to values for its own host, with a browser's rules behind it.

        client.cookies["trio_session"]                          # what the browser would send back
        client.cookies["trio_session"] = "forged"               # plant a cookie: host-only, path /
        client.cookies.attributes("trio_session").http_only     # how the server set it
        client.cookies.clear()                                  # a new browser

    Of several cookies with one name the mapping shows the one that is sent first, the one with the longest path.
    Setting and deleting a name concern all of them. Max-Age runs on trio's clock, and so does what is left of an
    Expires date when it arrives.

    Args:
        host: the client's own host.
        clock: tells the time in seconds.
    """

    def __init__(self, host: str, *, clock: Callable[[], float] = trio.current_time) -> None:
        self._host = host.lower()
        self._clock = clock
        # (name, domain, path): the domain has a dot in front unless the cookie is host-only, for these are two
        # different cookies. In order of creation: a cookie that is replaced keeps its place.
        self._cookies: dict[tuple[str, str, str], Cookie] = {}

    # -- the mapping: the client's own host ------------------------------------------------------------------------

    def __getitem__(self, name: str) -> str:
        return self.attributes(name).value

    def __setitem__(self, name: str, value: str) -> None:
        if not name or any(character in name for character in "=; \t") or _CONTROLS.search(name):
            raise ValueError("a cookie's name is not empty and has no spaces, control characters, `=` or `;`")
        if ";" in value or _CONTROLS.search(value):
            raise ValueError("a cookie's value has no control characters and no `;`")
        for cookie in self._own(name):
            del self._cookies[_key(cookie)]
        secure = name.lower().startswith(("__secure-", "__host-"))
        self._keep(Cookie(name=name, value=value, domain=self._host, secure=secure))

    def __delitem__(self, name: str) -> None:
        found = self._own(name)
        if not found:
            raise KeyError(name)
        for cookie in found:
            del self._cookies[_key(cookie)]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(cookie.name for cookie in self._own()))

    def __len__(self) -> int:
        return len({cookie.name for cookie in self._own()})

    def clear(self) -> None:
        """Forget every cookie, those of other hosts too."""
        self._cookies.clear()

    def attributes(self, name: str) -> Cookie:
        """The cookie called `name` with all that the server said about it.

        Raises:
            KeyError: there is none for the client's own host.
        """
        found = self._own(name)
        if not found:
            raise KeyError(name)
        return found[0]

    def __repr__(self) -> str:
        return f"<CookieJar of {self._host}: {', '.join(self) or 'empty'}>"  # names only: values end up in logs

    def _own(self, name: str | None = None) -> list[Cookie]:
        """What the client's own host may get, whatever the path and scheme, in the order of sending."""
        return [c for c in self._in_order() if (name is None or c.name == name) and _goes_to_host(c, self._host)]

    # -- the browser -----------------------------------------------------------------------------------------------

    def header(self, url: SplitResult, extra: Mapping[str, str] | None = None) -> str | None:
        """The Cookie header for a request to `url`, or None; `extra` cookies replace those of the same name."""
        host, secure, path = url.hostname or "", url.scheme in _SECURE_SCHEMES, url.path or "/"
        pairs = [
            (cookie.name, cookie.value)
            for cookie in self._in_order()
            if _goes_to_host(cookie, host) and (secure or not cookie.secure) and _path_matches(path, cookie.path)
        ]
        if extra:
            pairs = [pair for pair in pairs if pair[0] not in extra] + list(extra.items())
        return "; ".join(f"{name}={value}" for name, value in pairs) or None

    def receive(self, url: SplitResult, set_cookie: str) -> Cookie | None:
        """Do what a browser does with a Set-Cookie header in the response from `url`.

        Returns:
            The cookie, if it is kept; None if it is dropped, or if it removes one.
        """
        cookie = _parse(url, set_cookie, self._clock())
        if cookie is None or not self._is_allowed(cookie, url):
            return None
        if cookie.expires_at <= self._clock():
            self._cookies.pop(_key(cookie), None)
            return None
        self._keep(cookie)
        return cookie

    def _is_allowed(self, cookie: Cookie, url: SplitResult) -> bool:
        if url.scheme in _SECURE_SCHEMES or cookie.secure:
            return url.scheme in _SECURE_SCHEMES
        # "Leave Secure Cookies Alone": an insecure answer must not put its own cookie in front of a secure one.
        return not any(
            other.name == cookie.name
            and other.secure
            and (_domain_matches(other.domain, cookie.domain) or _domain_matches(cookie.domain, other.domain))
            and _path_matches(cookie.path, other.path)
            for other in self._in_order()
        )

    def _keep(self, cookie: Cookie) -> None:
        self._cookies[_key(cookie)] = cookie

    def _in_order(self) -> list[Cookie]:
        """The living cookies in the order they are sent: longest path first, then the oldest."""
        now = self._clock()
        for key in [key for key, cookie in self._cookies.items() if cookie.expires_at <= now]:
            del self._cookies[key]
        return sorted(self._cookies.values(), key=lambda cookie: -len(cookie.path))


def _key(cookie: Cookie) -> tuple[str, str, str]:
    return cookie.name, cookie.domain if cookie.host_only else f".{cookie.domain}", cookie.path


# -- Set-Cookie ------------------------------------------------------------------------------------------------------


def _parse(url: SplitResult, set_cookie: str, now: float) -> Cookie | None:
    """RFC 6265bis 5.6 and 5.7; None for a cookie that browsers drop whatever else they have."""
    pair, _, rest = set_cookie.partition(";")
    name, equals, value = (part.strip(" \t") for part in pair.partition("="))
    # Browsers keep cookies without a name; nobody sets one on purpose, so a test should see it missing.
    if not name or not equals or _CONTROLS.search(set_cookie) or _octets(name + value) > _MAX_PAIR:
        return None
    host = url.hostname or ""
    domain, path, path_is_given = "", _default_path(url.path), False
    max_age: int | None = None
    remaining: float | None = None  # seconds until Expires
    secure = http_only = partitioned = False
    same_site: Literal["Lax", "Strict", "None"] | None = None
    for attribute in rest.split(";"):
        key, _, text = (part.strip(" \t") for part in attribute.partition("="))
        if _octets(text) > _MAX_ATTRIBUTE:
            continue
        match key.lower():
            case "domain":
                domain = text.removeprefix(".").lower()
            case "path":
                path_is_given = text.startswith("/")
                path = text if path_is_given else _default_path(url.path)
            case "max-age":
                max_age = int(text) if re.fullmatch(r"-?[0-9]+", text) else max_age
            case "expires":
                remaining = _seconds_until(text, otherwise=remaining)
            case "secure":
                secure = True
            case "httponly":
                http_only = True
            case "samesite":
                same_site = _SAME_SITE.get(text.lower())
            case "partitioned":
                partitioned = True
            case _:
                pass
    if domain and not _may_widen_to(domain, host):
        return None
    if not secure and (same_site == "None" or partitioned):
        return None
    prefix = name.lower()
    if prefix.startswith(("__secure-", "__host-")) and not secure:
        return None
    if prefix.startswith("__host-") and (domain or not path_is_given or path != "/"):
        return None
    lifetime = max_age if max_age is not None else remaining
    return Cookie(
        name=name,
        value=value,
        domain=domain or host,
        host_only=not domain or (domain == host and not _is_wide(domain)),
        path=path,
        secure=secure,
        http_only=http_only,
        same_site=same_site,
        partitioned=partitioned,
        max_age=max_age,
        expires_at=inf if lifetime is None else now + min(lifetime, _MAX_AGE),
    )


def _octets(text: str) -> int:
    return len(text.encode("utf-8", "surrogateescape"))


def _seconds_until(date: str, *, otherwise: float | None) -> float | None:
    try:
        when = parsedate_to_datetime(date)
    except (OverflowError, ValueError):
        return otherwise  # what is no date says nothing
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() - time.time()


def _default_path(path: str) -> str:
    """The directory of the request's path (RFC 6265bis 5.1.4)."""
    return path[: path.rfind("/")] or "/" if path.startswith("/") else "/"


def _path_matches(path: str, cookie_path: str) -> bool:
    return path == cookie_path or path.startswith(cookie_path if cookie_path.endswith("/") else f"{cookie_path}/")


def _may_widen_to(domain: str, host: str) -> bool:
    return domain == host or (_is_wide(domain) and _domain_matches(host, domain))


def _is_wide(domain: str) -> bool:
    """Whether a domain can have hosts of different owners' choosing below it: `com` and addresses cannot."""
    return "." in domain and not _is_address(domain)


def _goes_to_host(cookie: Cookie, host: str) -> bool:
    return cookie.domain == host or (not cookie.host_only and _domain_matches(host, cookie.domain))


def _domain_matches(host: str, domain: str) -> bool:
    return host == domain or (host.endswith(f".{domain}") and not _is_address(host))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
