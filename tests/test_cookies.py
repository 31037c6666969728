"""Cookies: ours is found beside all odd ones, and set so that neither caches nor neighbours get it."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from trio_session._config import SessionConfig
from trio_session._cookies import SessionCookie, candidate_ids, with_cookie, with_vary

Headers = list[tuple[bytes, bytes]]


def sids(*lines: bytes) -> list[str]:
    """What is found under `sid` in a request with these cookie headers."""
    return candidate_ids([(b"host", b"sid=no"), *((b"cookie", line) for line in lines)], "sid")


# --- finding --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (b"sid=abc", ["abc"]),
        (b"a=1;sid=abc;b=2", ["abc"]),
        (b" a=1 ;\tsid = abc\t; b=2", ["abc"]),
        (b'sid="abc"', ["abc"]),
        (b'sid="', ['"']),
        (b"sid=", [""]),
        (b"sid=a=b", ["a=b"]),
        (b"sid=a%20b", ["a%20b"]),
        (b'sid="a\\054b"', ["a\\054b"]),
        (b"sid=a,b c", ["a,b c"]),
    ],
)
def test_a_value_is_found_as_it_was_sent(line: bytes, found: list[str]) -> None:
    """Blanks around it and one pair of quotes do not belong to a value; nothing is decoded."""
    assert sids(line) == found


@pytest.mark.parametrize(
    "line",
    [
        b'{"j":1}; sid=2',
        b"flag; sid=2",
        b"expires=x; path=/; sid=2",
        b"a=1; bad[x]=2; sid=2",
        b"a=b,c d; sid=2",
        b'a="unclosed; sid=2',
        b"=; ;;=x; sid=2; =",
        b"\xff\xfe=\xfd; sid=2",
    ],
)
def test_odd_cookies_do_not_hide_ours(line: bytes) -> None:
    """Another program's cookie, however malformed, cannot log anybody out."""
    assert sids(line) == ["2"]


def test_all_cookies_of_our_name_are_candidates() -> None:
    """Tossed cookies stand beside ours: all are tried, in the order sent, each once."""
    assert sids(b"sid=a; sid=b; sid=a") == ["a", "b"]


def test_several_cookie_headers_are_read_as_one() -> None:
    """HTTP/3 sends each cookie in a header of its own."""
    assert sids(b"a=1", b"sid=x", b"sid=y; b=2") == ["x", "y"]


@pytest.mark.parametrize("line", [b"SID=sid", b"xsid=a", b"sidx=a", b"x=sid=a", b"sid", b"$sid=a", b"sid=\xc3\xa9"])
def test_what_is_not_ours_is_no_candidate(line: bytes) -> None:
    """Names are compared exactly, and a value that is not ASCII was never issued."""
    assert sids(line) == []


def test_very_many_cookies_are_read_in_no_time() -> None:
    """A header full of cookies of our name, all different, costs no more than its length."""
    lines = b"; ".join(b"sid=%d" % number for number in range(100_000))
    assert len(sids(lines)) == 100_000


pieces = st.sampled_from([b"sid", b"=", b";", b'"', b" ", b"\t", b",", b"\\", b"\xff", b"\x00", b"a"])


@given(st.lists(st.lists(st.one_of(pieces, st.binary(max_size=4))).map(b"".join)))
def test_no_cookie_header_raises(lines: list[bytes]) -> None:
    """Whatever is sent, a good cookie sent after it is found."""
    assert "good" in sids(*lines, b"sid=good")


# --- issuing --------------------------------------------------------------------------------------


def test_the_default_cookie() -> None:
    """By default: for this host, not for scripts, not for other sites, over TLS if it came so."""
    cookie = SessionCookie(SessionConfig())
    assert cookie.name == "trio_session"
    plain = b"trio_session=abc; Max-Age=7200; Path=/; HttpOnly; SameSite=Lax"
    assert cookie.issue("abc", https=False) == plain
    assert cookie.issue("abc", https=True) == plain.replace(b"HttpOnly", b"Secure; HttpOnly")


def test_a_cookie_with_every_attribute() -> None:
    """Each setting shows in the cookie."""
    config = SessionConfig(
        cookie_name="sid",
        lifetime=90.9,
        path="/shop",
        domain="example.com",
        secure=True,
        http_only=False,
        same_site="Strict",
        partitioned=True,
    )
    assert SessionCookie(config).issue("abc", https=False) == (
        b"sid=abc; Max-Age=90; Path=/shop; Domain=example.com; Secure; SameSite=Strict; Partitioned"
    )


def test_removing_keeps_the_attributes() -> None:
    """A browser removes a cookie only if name, path, domain and the rest are those it was set with."""
    cookie = SessionCookie(SessionConfig(path="/shop", domain="example.com"))
    assert cookie.remove(https=True) == (
        b"trio_session=; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Path=/shop;"
        b" Domain=example.com; Secure; HttpOnly; SameSite=Lax"
    )
    assert b"Secure" not in cookie.remove(https=False)


@pytest.mark.parametrize(
    ("config", "http", "https"),
    [
        (SessionConfig(secure="auto"), False, True),
        (SessionConfig(secure=True), True, True),
        (SessionConfig(secure=False), False, False),
        (SessionConfig(same_site="None"), True, True),
        (SessionConfig(partitioned=True), True, True),
    ],
)
def test_when_a_cookie_is_secure(config: SessionConfig, http: bool, https: bool) -> None:
    """As configured; "auto" follows the request, unless browsers would refuse the cookie."""
    cookie = SessionCookie(config)
    assert (b"; Secure;" in cookie.issue("abc", https=False)) is http
    assert (b"; Secure;" in cookie.issue("abc", https=True)) is https


@pytest.mark.parametrize(("lifetime", "max_age"), [(float("inf"), 34_560_000), (1e300, 34_560_000), (0.5, 1), (60, 60)])
def test_max_age_is_the_lifetime(lifetime: float, max_age: int) -> None:
    """The longest is what browsers keep, and the shortest does not remove the cookie."""
    value = SessionCookie(SessionConfig(lifetime=lifetime)).issue("abc", https=False)
    assert b"; Max-Age=%d;" % max_age in value


# --- caches ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], [b"private"]),
        ([b""], [b"private"]),
        ([b"public"], [b"private"]),
        ([b"Public, max-age=60, no-transform"], [b"max-age=60, no-transform, private"]),
        ([b"max-age=60"], [b"max-age=60, private"]),
        ([b"private"], [b"private"]),
        ([b"Private, max-age=60"], [b"Private, max-age=60"]),
        ([b"no-store"], [b"no-store"]),
        ([b"no-store,public"], [b"no-store"]),
        ([b"public", b"max-age=60"], [b"max-age=60, private"]),
        ([b"max-age=60", b"private"], [b"max-age=60", b"private"]),
        ([b"private", b"max-age=60"], [b"private", b"max-age=60"]),
        ([b'private="X-A, private, X-B"'], [b'private="X-A, private, X-B", private']),
        ([b'ext="\\", public, \\"", public'], [b'ext="\\", public, \\"", private']),
        ([b"publication=1"], [b"publication=1, private"]),
    ],
)
def test_a_response_with_our_cookie_is_private(before: list[bytes], after: list[bytes]) -> None:
    """No shared cache keeps it, whatever the handler said; the handler's other wishes stay."""
    headers: Headers = [(b"x", b"1"), *((b"Cache-Control", value) for value in before)]
    result = with_cookie(headers, b"sid=abc")
    assert result[0] == (b"x", b"1")
    assert result[-1] == (b"set-cookie", b"sid=abc")
    assert [value for name, value in result if name.lower() == b"cache-control"] == after


def test_the_cookies_of_others_stay() -> None:
    """A handler's own Set-Cookie goes out beside ours."""
    result = with_cookie([(b"set-cookie", b"a=1")], b"sid=abc")
    assert [value for name, value in result if name == b"set-cookie"] == [b"a=1", b"sid=abc"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], [b"Cookie"]),
        ([b""], [b"Cookie"]),
        ([b"Accept"], [b"Accept, Cookie"]),
        ([b"Accept,cookie"], [b"Accept,cookie"]),
        ([b"*"], [b"*"]),
        ([b"Accept", b"COOKIE"], [b"Accept", b"COOKIE"]),
        ([b"Cookie2"], [b"Cookie2, Cookie"]),
    ],
)
def test_a_response_that_used_the_session_varies(before: list[bytes], after: list[bytes]) -> None:
    """Caches are told, once, that another cookie means another answer."""
    headers: Headers = [(b"x", b"1"), *((b"Vary", value) for value in before)]
    result = with_vary(headers)
    assert result[0] == (b"x", b"1")
    assert [value for name, value in result if name.lower() == b"vary"] == after


def test_the_given_headers_are_left_alone() -> None:
    """The handler's own list of headers is not changed under its hands."""
    headers: Headers = [(b"vary", b"Accept"), (b"cache-control", b"public")]
    before = headers.copy()
    with_vary(headers)
    with_cookie(headers, b"sid=abc")
    assert headers == before
