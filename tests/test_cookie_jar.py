"""CookieJar: what a browser keeps, what it drops, and what it sends where. Time is a number that the tests turn."""

from __future__ import annotations

import time
from email.utils import formatdate
from math import inf
from urllib.parse import urlsplit

import pytest
import trio
from hypothesis import given, strategies as st
from trio.testing import MockClock

from trio_session.testing import Cookie, CookieJar

HTTP = "http://shop.example/"
HTTPS = "https://shop.example/"


class Browser:
    """A jar for shop.example, with a clock to turn and URLs as text."""

    def __init__(self, host: str = "shop.example") -> None:
        self.now = 0.0
        self.jar = CookieJar(host, clock=lambda: self.now)

    def receive(self, set_cookie: str, url: str = HTTPS) -> Cookie | None:
        return self.jar.receive(urlsplit(url), set_cookie)

    def sends(self, url: str = HTTPS, extra: dict[str, str] | None = None) -> str | None:
        return self.jar.header(urlsplit(url), extra)


@pytest.fixture
def browser() -> Browser:
    return Browser()


# -- the mapping -----------------------------------------------------------------------------------------------------


def test_the_jar_is_a_mapping_of_the_clients_own_cookies(browser: Browser) -> None:
    """get, [], in, len, iteration and comparison are those of a dict of names and values."""
    browser.receive("a=1")
    browser.receive("b=2; Path=/deep; Secure")
    browser.receive("c=3", "https://other.example/")
    assert browser.jar == {"a": "1", "b": "2"}
    assert browser.jar["a"] == "1"
    assert browser.jar.get("c") is None
    assert "b" in browser.jar
    assert len(browser.jar) == 2
    assert sorted(browser.jar) == ["a", "b"]
    assert repr(browser.jar) == "<CookieJar of shop.example: b, a>"


def test_an_empty_jar_shows_that_it_is_empty(browser: Browser) -> None:
    """The repr of a jar without cookies says so."""
    assert repr(browser.jar) == "<CookieJar of shop.example: empty>"


def test_a_missing_name_is_a_key_error(browser: Browser) -> None:
    """Reading, deleting and asking for the attributes of a cookie that is not there."""
    with pytest.raises(KeyError):
        browser.jar["a"]
    with pytest.raises(KeyError):
        del browser.jar["a"]
    with pytest.raises(KeyError):
        browser.jar.attributes("a")


def test_of_one_name_the_longest_path_is_shown(browser: Browser) -> None:
    """The mapping shows what is sent first, and counts the name once."""
    browser.receive("a=root; Path=/")
    browser.receive("a=deep; Path=/deep")
    assert browser.jar == {"a": "deep"}
    assert len(browser.jar) == 1


def test_a_planted_cookie_replaces_all_of_its_name(browser: Browser) -> None:
    """After `jar[name] = value` there is one such cookie, and it goes everywhere on the host."""
    browser.receive("a=1; Path=/deep")
    browser.receive("a=2; Domain=shop.example")
    browser.jar["a"] = "forged"
    assert browser.sends("http://shop.example/deep") == "a=forged"
    assert browser.sends("http://sub.shop.example/") is None
    assert browser.jar.attributes("a") == Cookie(name="a", value="forged", domain="shop.example")


@pytest.mark.parametrize("name", ["__Host-id", "__Secure-id"])
def test_a_planted_cookie_with_a_prefix_is_secure(browser: Browser, name: str) -> None:
    """A browser has no insecure cookie of such a name, so none can be planted."""
    browser.jar[name] = "x"
    assert browser.sends(HTTP) is None
    assert browser.sends(HTTPS) == f"{name}=x"


@pytest.mark.parametrize("name", ["", "a b", "a=b", "a;b", "a\n"])
def test_a_name_that_cannot_be_sent_cannot_be_planted(browser: Browser, name: str) -> None:
    """The header could not be taken apart again."""
    with pytest.raises(ValueError, match="name"):
        browser.jar[name] = "x"


@pytest.mark.parametrize("value", ["a;b", "a\r\nb", "\x00"])
def test_a_value_that_cannot_be_sent_cannot_be_planted(browser: Browser, value: str) -> None:
    """Everything else may be planted: servers must live through odd values."""
    with pytest.raises(ValueError, match="value"):
        browser.jar["a"] = value
    browser.jar["a"] = 'odd "välue", {}='
    assert browser.sends() == 'a=odd "välue", {}='


def test_deleting_and_clearing(browser: Browser) -> None:
    """`del` removes a name with all its paths, `clear` makes a new browser."""
    browser.receive("a=1; Path=/deep")
    browser.receive("a=2; Path=/")
    browser.receive("b=3")
    browser.receive("c=4", "https://other.example/")
    del browser.jar["a"]
    assert browser.jar == {"b": "3"}
    browser.jar.clear()
    assert browser.jar == {}
    assert browser.sends("https://other.example/") is None


def test_attributes_are_what_the_server_said(browser: Browser) -> None:
    """Names in any case and any order; what the server did not say has its default."""
    browser.now = 100.0
    kept = browser.receive(
        "id=x=y; max-age=7200; PATH=/app; domain=.Shop.Example; secure; HttpOnly; samesite=LAX; Partitioned; Foo=1"
    )
    assert kept == browser.jar.attributes("id")
    assert kept == Cookie(
        name="id",
        value="x=y",
        domain="shop.example",
        host_only=False,
        path="/app",
        secure=True,
        http_only=True,
        same_site="Lax",
        partitioned=True,
        max_age=7200,
        expires_at=7300.0,
    )
    assert browser.receive("plain=1", "http://shop.example/a/b") == Cookie(
        name="plain", value="1", domain="shop.example", path="/a"
    )


# -- paths -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cookie_path", "path", "is_sent"),
    [
        ("/", "/", True),
        ("/", "/any/where", True),
        ("/app", "/app", True),
        ("/app", "/app/", True),
        ("/app", "/app/deep", True),
        ("/app", "/apple", False),
        ("/app", "/", False),
        ("/app/", "/app", False),
        ("/app/", "/app/deep", True),
    ],
)
def test_a_cookie_goes_to_its_path_and_below(browser: Browser, cookie_path: str, path: str, is_sent: bool) -> None:
    """Below means a `/`, not just the same letters."""
    browser.receive(f"a=1; Path={cookie_path}")
    assert browser.sends(f"https://shop.example{path}") == ("a=1" if is_sent else None)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("https://shop.example", "/"),
        ("https://shop.example/", "/"),
        ("https://shop.example/a", "/"),
        ("https://shop.example/a/b", "/a"),
        ("https://shop.example/a/", "/a"),
    ],
)
@pytest.mark.parametrize("attribute", ["", "; Path", "; Path=relative"])
def test_without_a_path_a_cookie_goes_where_it_came_from(browser: Browser, url: str, path: str, attribute: str) -> None:
    """The directory of the request; a path that does not begin with `/` is none."""
    kept = browser.receive(f"a=1{attribute}", url)
    assert kept is not None
    assert kept.path == path


def test_the_longest_path_is_sent_first_and_then_the_oldest(browser: Browser) -> None:
    """A cookie that is replaced keeps its age."""
    browser.receive("a=1; Path=/")
    browser.receive("b=2; Path=/")
    browser.receive("c=3; Path=/deep")
    browser.receive("a=4; Path=/")
    assert browser.sends("https://shop.example/deep") == "c=3; a=4; b=2"


def test_extra_cookies_replace_those_of_their_name(browser: Browser) -> None:
    """They are sent this once and not kept."""
    browser.receive("a=1")
    browser.receive("b=2")
    assert browser.sends(extra={"a": "x", "c": "y"}) == "b=2; a=x; c=y"
    assert browser.sends() == "a=1; b=2"


# -- hosts and domains -----------------------------------------------------------------------------------------------


def test_without_a_domain_a_cookie_is_for_one_host(browser: Browser) -> None:
    """Not for the hosts above and below it."""
    browser.receive("a=1")
    assert browser.sends("https://shop.example/") == "a=1"
    assert browser.sends("https://SHOP.example/") == "a=1"
    assert browser.sends("https://sub.shop.example/") is None
    assert browser.sends("https://example/") is None


def test_a_domain_widens_a_cookie_to_the_hosts_below(browser: Browser) -> None:
    """To those and to the domain itself, but not to names that merely end alike."""
    browser.receive("a=1; Domain=shop.example", "https://www.shop.example/")
    assert browser.jar == {"a": "1"}
    assert browser.sends("https://www.shop.example/") == "a=1"
    assert browser.sends("https://shop.example/") == "a=1"
    assert browser.sends("https://workshop.example/") is None


@pytest.mark.parametrize("domain", ["example", "other.example", "sub.shop.example", "op.example"])
def test_a_cookie_for_strangers_is_dropped(browser: Browser, domain: str) -> None:
    """A host sets no cookies for its neighbours, for what is below it, nor for a whole top-level domain."""
    assert browser.receive(f"a=1; Domain={domain}") is None
    assert browser.jar == {}


@pytest.mark.parametrize("host", ["testserver", "127.0.0.1", "[::1]"])
def test_a_name_without_dots_and_an_address_cannot_be_widened(host: str) -> None:
    """The cookie is kept, but for this host only."""
    browser = Browser(host.strip("[]"))
    kept = browser.receive(f"a=1; Domain={host.strip('[]')}", f"https://{host}/")
    assert kept is not None
    assert kept.host_only
    assert browser.sends(f"https://sub.{host}/" if host == "testserver" else "https://1.127.0.0.1/") is None


def test_an_address_is_below_no_domain() -> None:
    """`1.127.0.0.1` would be below `127.0.0.1` if addresses were read as names; and the other way round."""
    browser = Browser("10.0.0.1")
    assert browser.receive("a=1; Domain=0.0.1", "https://10.0.0.1/") is None


def test_host_only_and_wide_cookies_of_one_name_are_two(browser: Browser) -> None:
    """Both are sent, as browsers do: that is how a cookie is tossed."""
    browser.receive("a=host")
    browser.receive("a=wide; Domain=shop.example")
    assert browser.sends() == "a=host; a=wide"


def test_an_empty_domain_means_this_host(browser: Browser) -> None:
    """`Domain=` says nothing."""
    kept = browser.receive("a=1; Domain=")
    assert kept is not None
    assert kept.host_only


# -- Secure ----------------------------------------------------------------------------------------------------------


def test_a_secure_cookie_goes_to_https_and_wss_only(browser: Browser) -> None:
    """And never over a connection that can be listened to."""
    browser.receive("a=1; Secure")
    assert browser.sends("https://shop.example/") == "a=1"
    assert browser.sends("wss://shop.example/") == "a=1"
    assert browser.sends("http://shop.example/") is None
    assert browser.sends("ws://shop.example/") is None


def test_a_secure_cookie_from_http_is_dropped(browser: Browser) -> None:
    """Whoever can listen could have written it too."""
    assert browser.receive("a=1; Secure", HTTP) is None
    assert browser.receive("a=1; Secure", "wss://shop.example/") is not None


def test_http_leaves_secure_cookies_alone(browser: Browser) -> None:
    """An insecure answer neither replaces nor removes nor hides a secure cookie."""
    browser.receive("a=1; Secure; Path=/; Domain=shop.example")
    assert browser.receive("a=2; Path=/", HTTP) is None
    assert browser.receive("a=2; Path=/deep", HTTP) is None
    assert browser.receive("a=2; Path=/", "http://sub.shop.example/") is None
    assert browser.receive("a=; Path=/; Domain=shop.example; Max-Age=0", HTTP) is None
    assert browser.sends("https://shop.example/deep") == "a=1"
    browser.receive("c=1; Secure; Path=/", "https://sub.shop.example/")
    assert browser.receive("c=2; Path=/; Domain=shop.example", HTTP) is None
    assert browser.receive("b=2", HTTP) is not None
    assert browser.receive("a=2", "http://other.example/") is not None


def test_http_may_set_a_cookie_above_a_secure_one(browser: Browser) -> None:
    """It is never sent in front of the secure cookie."""
    browser.receive("a=1; Secure; Path=/deep")
    assert browser.receive("a=2; Path=/", HTTP) is not None


@pytest.mark.parametrize(
    "set_cookie",
    [
        "__Host-a=1; Path=/",
        "__Host-a=1; Secure",
        "__Host-a=1; Secure; Path=/deep",
        "__Host-a=1; Secure; Path=/; Domain=shop.example",
        "__hOsT-a=1; Path=/",
        "__Secure-a=1",
        "__secure-a=1; Path=/",
        "a=1; SameSite=None",
        "a=1; Partitioned",
    ],
)
def test_cookies_that_break_their_own_rules_are_dropped(browser: Browser, set_cookie: str) -> None:
    """`__Host-` needs Secure, Path=/ and no Domain; `__Secure-`, SameSite=None and Partitioned need Secure."""
    assert browser.receive(set_cookie, "https://shop.example/") is None
    assert browser.jar == {}


@pytest.mark.parametrize(
    "set_cookie",
    [
        "__Host-a=1; Secure; Path=/",
        "__Secure-a=1; Secure; Path=/deep; Domain=shop.example",
        "a=1; SameSite=None; Secure",
        "a=1; Partitioned; Secure",
    ],
)
def test_cookies_that_keep_their_rules_are_kept(browser: Browser, set_cookie: str) -> None:
    """The same rules, kept."""
    assert browser.receive(set_cookie) is not None


# -- expiry ----------------------------------------------------------------------------------------------------------


def test_max_age_ends_a_cookie(browser: Browser) -> None:
    """It is gone the moment it is over, from the header and from the mapping."""
    browser.receive("a=1; Max-Age=60")
    browser.now = 59.9
    assert browser.sends() == "a=1"
    browser.now = 60.0
    assert browser.sends() is None
    assert "a" not in browser.jar


def test_without_max_age_and_expires_a_cookie_stays(browser: Browser) -> None:
    """A session cookie ends with the browser's session."""
    kept = browser.receive("a=1")
    assert kept is not None
    assert kept.expires_at == inf


@pytest.mark.parametrize("end", ["Max-Age=0", "Max-Age=-1", "Expires=Thu, 01 Jan 1970 00:00:00 GMT"])
def test_a_cookie_is_removed_by_one_that_is_over(browser: Browser, end: str) -> None:
    """Only that of the same name, domain and path."""
    browser.receive("a=1; Path=/")
    browser.receive("a=2; Path=/deep")
    assert browser.receive(f"a=; Path=/; {end}") is None
    assert browser.sends("https://shop.example/deep") == "a=2"
    assert browser.receive(f"never=seen; {end}") is None


def test_expires_runs_on_the_jars_clock_from_when_it_arrives(browser: Browser) -> None:
    """A date is a moment of the real world; what is left of it then passes with the test's time."""
    browser.receive(f"a=1; Expires={formatdate(time.time() + 3600, usegmt=True)}")
    browser.now = 3590.0
    assert "a" in browser.jar
    browser.now = 3601.0
    assert "a" not in browser.jar


def test_max_age_comes_before_expires(browser: Browser) -> None:
    """Wherever they stand."""
    browser.receive("a=1; Max-Age=60; Expires=Thu, 01 Jan 1970 00:00:00 GMT")
    browser.receive(f"b=1; Expires={formatdate(time.time() + 3600, usegmt=True)}; Max-Age=0")
    assert browser.jar == {"a": "1"}


@pytest.mark.parametrize("text", ["Max-Age=soon", "Max-Age=", "Max-Age=1.5", "Max-Age=+5", "Expires=tomorrow"])
def test_an_expiry_that_cannot_be_read_says_nothing(browser: Browser, text: str) -> None:
    """And does not take back what was said before."""
    kept = browser.receive(f"a=1; {text}")
    assert kept is not None
    assert kept.expires_at == inf
    kept = browser.receive(f"a=1; Max-Age=60; Expires=Thu, 01 Jan 1970 00:00:00 GMT; {text}")
    assert kept is not None
    assert kept.expires_at == 60.0


@pytest.mark.parametrize(
    "date",
    [
        "Wed Jan  1 00:00:00 2098",
        "Wednesday, 01-Jan-98 00:00:00 GMT",
        "Wed, 01-Jan-2098 00:00:00 GMT",
        "Wed, 01 Jan 2098 00:00:00 -0000",
    ],
)
def test_dates_of_the_old_kinds_are_read(browser: Browser, date: str) -> None:
    """All of them in UTC; two digits of the year 1998 are in the past."""
    kept = browser.receive(f"a=1; Expires={date}")
    assert (kept is None) == ("-98" in date)


def test_no_cookie_lives_longer_than_400_days(browser: Browser) -> None:
    """The bound browsers apply; `max_age` still shows what the server said."""
    kept = browser.receive(f"a=1; Max-Age={10**9}")
    assert kept is not None
    assert kept.expires_at == 400 * 86400
    assert kept.max_age == 10**9


async def test_the_clock_is_trios(mock_clock: MockClock) -> None:
    """Unless told otherwise, a jar counts the test's own seconds."""
    jar = CookieJar("testserver")
    jar.receive(urlsplit("http://testserver/"), "a=1; Max-Age=60")
    assert jar.attributes("a").expires_at == trio.current_time() + 60
    mock_clock.jump(61)
    assert jar == {}


# -- what is no cookie -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("set_cookie", ["", ";", "=", "=1", "lonely", "; Path=/", "a=\x00", "a=1; Path=/\n", "a\x7f=1"])
def test_what_is_no_cookie_is_dropped(browser: Browser, set_cookie: str) -> None:
    """No name, no `=`, or control characters."""
    assert browser.receive(set_cookie) is None
    assert browser.jar == {}


def test_cookies_and_attributes_that_are_too_long_do_not_count(browser: Browser) -> None:
    """4096 octets of name and value, 1024 of an attribute, not characters."""
    assert browser.receive("a=" + "x" * 4095) is not None
    assert browser.receive("a=" + "x" * 4096) is None
    assert browser.receive("a=" + "é" * 2048) is None
    kept = browser.receive("b=1; Path=/" + "x" * 1024)
    assert kept is not None
    assert kept.path == "/"


@pytest.mark.parametrize("text", ["SameSite", "SameSite=Sometimes"])
def test_a_same_site_that_is_not_known_is_the_default(browser: Browser, text: str) -> None:
    """As if nothing had been said."""
    kept = browser.receive(f"a=1; {text}")
    assert kept is not None
    assert kept.same_site is None


@given(st.text(st.characters(codec="utf-8"), max_size=40), st.sampled_from([HTTP, HTTPS]))
def test_nothing_a_server_says_breaks_the_jar(text: str, url: str) -> None:
    """Whatever comes is kept or dropped; what is kept can be sent."""
    browser = Browser()
    for set_cookie in (text, f"a={text}", f"a=1; Expires={text}", f"a=1; Max-Age={text}", f"a=1; Domain={text}"):
        kept = browser.receive(set_cookie, url)
        if kept is not None:
            assert f"{kept.name}={kept.value}" in (browser.sends(url) or "")


@given(
    st.lists(st.sampled_from(["1", "Jan", "99999999999", "GMT", "+9999", "-0000", "24:61:99", "0", "2098"]), max_size=6)
)
def test_no_date_breaks_the_jar(words: list[str]) -> None:
    """Dates made of good and bad parts are read or ignored."""
    browser = Browser()
    browser.receive(f"a=1; Expires={' '.join(words)}")
    assert len(browser.jar) <= 1
