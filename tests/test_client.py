"""The test client's requests and responses: what goes out, what comes back, and the cookies in between."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator

import h11
import pytest
from werkzeug.datastructures import Headers

from trio_session._asgi import Message, Receive, Scope, Send
from trio_session.testing import ASGIClient, ClientResponse, ResponseStatusError, open_test_client


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with what it was asked, as JSON."""
    assert scope["type"] == "http"
    messages: list[Message] = [await receive()]
    while messages[-1]["more_body"]:
        messages.append(await receive())
    seen = {
        "method": scope["method"],
        "url": f"{scope['scheme']}://{scope['path']}?{scope['query_string'].decode()}",
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]],
        "body": b"".join(message["body"] for message in messages).decode(),
        "chunks": [message["body"].decode() for message in messages],
        "raw_path": scope["raw_path"].decode(),
        "root_path": scope["root_path"],
        "server": scope["server"],
    }
    headers = [(b"content-type", b"application/json"), (b"X-Twice", b"1"), (b"x-twice", b"2")]
    await respond(send, 200, headers, json.dumps(seen).encode())


async def respond(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes = b"") -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def routes(scope: Scope, receive: Receive, send: Send) -> None:
    """Cookies and redirects by path: `/set?name=value`, `/go/<status>?<location>`; anything else shows the cookies."""
    match scope["path"].split("/"):
        case ["", "set"]:
            await respond(send, 200, [(b"set-cookie", scope["query_string"])])
        case ["", "go", status]:
            headers = [(b"location", scope["query_string"]), (b"set-cookie", b"went=1; Path=/")]
            await respond(send, int(status), headers)
        case ["", "status", status]:
            await respond(send, int(status), [])
        case _:
            cookies = [value for name, value in scope["headers"] if name == b"cookie"]
            message = await receive()
            more = [scope["method"].encode(), scope["path"].encode(), scope["scheme"].encode(), message["body"]]
            await respond(send, 200, [], b"|".join([*cookies, *more]))


@pytest.fixture
async def client() -> AsyncIterator[ASGIClient]:
    async with open_test_client(echo) as client:
        yield client


@pytest.fixture
async def browser() -> AsyncIterator[ASGIClient]:
    async with open_test_client(routes) as client:
        yield client


def header(response: ClientResponse, name: str) -> list[str]:
    """What the echo saw of a header."""
    return [value for key, value in response.json()["headers"] if key == name]


# -- what goes out ---------------------------------------------------------------------------------------------------


async def test_every_method_has_its_call(client: ASGIClient) -> None:
    """Seven verbs, and `request` for the rest."""
    calls = {
        "GET": client.get,
        "POST": client.post,
        "PUT": client.put,
        "PATCH": client.patch,
        "DELETE": client.delete,
        "OPTIONS": client.options,
    }
    for method, call in calls.items():
        assert (await call("/")).json()["method"] == method
    assert (await client.request("propfind", "/")).json()["method"] == "PROPFIND"
    response = await client.head("/")
    assert response.status_code == 200
    assert response.content == b""


@pytest.mark.parametrize(
    ("path", "raw_path", "url"),
    [
        ("/", "/", "http:///?"),
        ("/a/b?x=1&y=%20#top", "/a/b", "http:///a/b?x=1&y=%20"),
        ("/caf\u00e9 au lait", "/caf%C3%A9%20au%20lait", "http:///caf\u00e9 au lait?"),
        ("/caf%C3%A9", "/caf%C3%A9", "http:///caf\u00e9?"),
        ("//up/../x", "//up/../x", "http:////up/../x?"),
        ("/?q=\u00e9", "/", "http:///?q=%C3%A9"),
        ("https://other.example", "/", "https:///?"),
    ],
)
async def test_paths_are_quoted_once(client: ASGIClient, path: str, raw_path: str, url: str) -> None:
    """Text is quoted, what is quoted stays; nothing else is changed."""
    seen = (await client.get(path)).json()
    assert (seen["raw_path"], seen["url"]) == (raw_path, url)


async def test_params_are_added_to_the_query(client: ASGIClient) -> None:
    """As a mapping or as pairs; a list repeats its name."""
    assert (await client.get("/", params={"a": [1, 2], "b": "\u00e9 &"})).json()[
        "url"
    ] == "http:///?a=1&a=2&b=%C3%A9+%26"
    assert (await client.get("/?x=0", params=[("a", 1), ("a", 2)])).json()["url"] == "http:///?x=0&a=1&a=2"
    assert (await client.get("/?x=0", params={})).json()["url"] == "http:///?x=0"


@pytest.mark.parametrize("path", ["visits", "", "?x", "ftp://testserver/", "http:///nowhere"])
async def test_what_is_neither_path_nor_url_is_refused(client: ASGIClient, path: str) -> None:
    """There is no current page that it could be relative to."""
    with pytest.raises(ValueError, match="a path starts with"):
        await client.get(path)


async def test_a_request_needs_http(client: ASGIClient) -> None:
    """Ws and wss are for `client.websocket`."""
    with pytest.raises(ValueError, match=r"client\.websocket"):
        await client.get("ws://testserver/")


async def test_headers_of_the_call_replace_those_of_the_client() -> None:
    """Names count in any case; pairs can repeat a name; Host and User-Agent can be replaced too."""
    async with open_test_client(echo, headers={"X-Both": "client", "x-client": "1"}) as client:
        response = await client.get("/", headers=[("x-both", "a"), ("X-BOTH", "b"), ("Host", "evil.example")])
        assert header(response, "x-both") == ["a", "b"]
        assert header(response, "x-client") == ["1"]
        assert header(response, "host") == ["evil.example"]
        assert header(response, "user-agent") == ["trio_session.testing"]
        client.headers["User-Agent"] = "Mozilla"
        response = await client.get("/", headers=Headers({"x-odd": "\u00e9"}))
        assert header(response, "user-agent") == ["Mozilla"]
        assert header(response, "host") == ["testserver"]
        assert header(response, "x-odd") == ["\u00c3\u00a9"]


async def test_a_header_that_cannot_be_sent_is_refused(client: ASGIClient) -> None:
    """It would be another request on the wire."""
    with pytest.raises(h11.LocalProtocolError):
        await client.get("/", headers={"x": "a\r\nb: c"})


async def test_json_is_sent_as_json(client: ASGIClient) -> None:
    """Any value but None, which means no body."""
    response = await client.post("/", json={"caf\u00e9": [1, None]})
    assert json.loads(response.json()["body"]) == {"caf\u00e9": [1, None]}
    assert header(response, "content-type") == ["application/json"]
    assert header(response, "content-length") == [str(len(response.json()["body"].encode()))]
    assert (await client.post("/", json=False)).json()["body"] == "false"
    assert (await client.post("/", json=None)).json()["body"] == ""


async def test_data_is_sent_as_a_form(client: ASGIClient) -> None:
    """As a mapping or as pairs; a list repeats its name."""
    response = await client.post("/", data={"a": [1, 2], "b": "x y"})
    assert response.json()["body"] == "a=1&a=2&b=x+y"
    assert header(response, "content-type") == ["application/x-www-form-urlencoded"]
    assert (await client.put("/", data=[("a", 1), ("a", 2)])).json()["body"] == "a=1&a=2"


async def test_content_is_sent_as_it_is(client: ASGIClient) -> None:
    """Bytes in one message; Hypercorn sends an empty one after the last. The type is the caller's to tell."""
    response = await client.post("/", content=b"raw", headers={"Content-Type": "text/plain"})
    assert response.json()["chunks"] == ["raw", ""]
    assert header(response, "content-type") == ["text/plain"]
    assert header(response, "content-length") == ["3"]


async def test_every_chunk_is_a_message(client: ASGIClient) -> None:
    """An iterable goes out chunk by chunk; an empty chunk is nothing on the wire."""

    def chunks() -> Iterator[bytes]:
        yield from (b"one", b"", b"two")

    response = await client.post("/", content=chunks())
    assert response.json()["chunks"] == ["one", "two", ""]
    assert header(response, "transfer-encoding") == ["chunked"]


async def test_a_request_without_a_body(client: ASGIClient) -> None:
    """One empty message; where a body is usual, its length of 0 is told, as browsers do."""
    assert (await client.get("/")).json()["chunks"] == [""]
    assert header(await client.get("/"), "content-length") == []
    assert header(await client.post("/"), "content-length") == ["0"]
    assert (await client.post("/", content=b"")).json()["chunks"] == [""]


async def test_a_request_has_one_body(client: ASGIClient) -> None:
    """Nobody could say which of two was meant."""
    with pytest.raises(TypeError, match="one body"):
        await client.post("/", json={}, data={})


async def test_the_base_url_says_scheme_and_host() -> None:
    """The rest of the scope follows from it; root_path is Hypercorn's setting."""
    async with open_test_client(echo, base_url="https://Shop.Example:8443/", root_path="/app") as client:
        response = await client.get("/app/x")
        assert header(response, "host") == ["shop.example:8443"]
        assert response.json()["url"] == "https:///app/x?"
        assert response.json()["root_path"] == "/app"
        assert response.json()["server"] == ["127.0.0.1", 8443]
        assert response.url == "https://Shop.Example:8443/app/x"
        assert repr(client) == "<ASGIClient of https://Shop.Example:8443/>"


@pytest.mark.parametrize("base_url", ["testserver", "http://testserver/app", "http://testserver?x", "ws://testserver"])
async def test_a_base_url_is_no_more_than_that(base_url: str) -> None:
    """A path would have to be joined to others in one of several ways."""
    with pytest.raises(ValueError, match="http"):
        async with open_test_client(echo, base_url=base_url):
            pass


# -- what comes back -------------------------------------------------------------------------------------------------


async def test_a_response_shows_what_the_application_sent(client: ASGIClient) -> None:
    """Status, headers in any case, and the body in three ways."""
    response = await client.get("/")
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers.getlist("x-TWICE") == ["1", "2"]
    assert json.loads(response.content) == json.loads(response.text) == response.json()
    assert response.raise_for_status() is response
    assert repr(response) == "<ClientResponse 200 http://testserver/>"


@pytest.mark.parametrize(
    ("content_type", "body", "text"),
    [
        (b"text/plain", "\u00e9".encode(), "\u00e9"),
        (b"text/plain; charset=latin-1", b"\xe9", "\u00e9"),
        (b"text/plain; charset=klingon", "\u00e9".encode(), "\u00e9"),
        (b"text/plain", b"\xff", "\ufffd"),
    ],
)
async def test_text_goes_by_the_charset(content_type: bytes, body: bytes, text: str) -> None:
    """UTF-8 if there is none, or none that is known; what cannot be read never raises."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, 200, [(b"content-type", content_type)], body)

    async with open_test_client(app) as client:
        assert (await client.get("/")).text == text


@pytest.mark.parametrize("status", [400, 404, 503])
async def test_raise_for_status(browser: ASGIClient, status: int) -> None:
    """An error names the status and the URL."""
    response = await browser.get(f"/status/{status}")
    with pytest.raises(ResponseStatusError, match=f"http://testserver/status/{status}") as caught:
        response.raise_for_status()
    assert caught.value.status_code == status
    redirect = await browser.get("/go/302?/")
    assert redirect.raise_for_status() is redirect


# -- cookies ---------------------------------------------------------------------------------------------------------


async def test_cookies_come_back_as_a_browser_sends_them(browser: ASGIClient) -> None:
    """Set by one response, sent with the next request, gone when the server says so."""
    response = await browser.get("/set?a=1;Path=/;HttpOnly")
    assert response.cookies == {"a": "1"}
    assert browser.cookies == {"a": "1"}
    assert browser.cookies.attributes("a").http_only
    assert (await browser.get("/")).text == "a=1|GET|/|http|"
    response = await browser.get("/set?a=;Path=/;Max-Age=0")
    assert response.cookies == {}
    assert response.headers.getlist("set-cookie") == ["a=;Path=/;Max-Age=0"]
    assert (await browser.get("/")).text == "GET|/|http|"


async def test_a_cookie_a_browser_drops_is_dropped(browser: ASGIClient) -> None:
    """Over http there are no Secure cookies; over https there are, on the same jar."""
    assert (await browser.get("/set?a=1;Path=/;Secure")).cookies == {}
    assert (await browser.get("https://testserver/set?a=1;Path=/;Secure")).cookies == {"a": "1"}
    assert (await browser.get("/")).text == "GET|/|http|"
    assert (await browser.get("https://testserver/")).text == "a=1|GET|/|https|"


async def test_a_planted_cookie_is_sent(browser: ASGIClient) -> None:
    """A test can come with a cookie of its own making."""
    browser.cookies["a"] = "forged"
    assert (await browser.get("/")).text == "a=forged|GET|/|http|"
    browser.cookies.clear()
    assert (await browser.get("/")).text == "GET|/|http|"


async def test_cookies_of_one_request(browser: ASGIClient) -> None:
    """They replace those of their name and are not kept; a Cookie header replaces the jar altogether."""
    browser.cookies["a"] = "1"
    assert (await browser.get("/", cookies={"a": "x", "b": "y"})).text == "a=x; b=y|GET|/|http|"
    assert (await browser.get("/", headers={"Cookie": "c=1; c=2"})).text == "c=1; c=2|GET|/|http|"
    assert (await browser.get("/")).text == "a=1|GET|/|http|"


async def test_the_bytes_of_a_cookie_come_back_unchanged() -> None:
    """Whatever they are, UTF-8 or not."""
    seen: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend(value for name, value in scope["headers"] if name == b"cookie")
        await respond(send, 200, [(b"set-cookie", b"a=\xe9\xc3\xa9")])

    async with open_test_client(app) as client:
        await client.get("/")
        await client.get("/")
    assert seen == [b"a=\xe9\xc3\xa9"]


# -- redirects -------------------------------------------------------------------------------------------------------


async def test_redirects_are_shown_unless_they_are_to_be_followed(browser: ASGIClient) -> None:
    """The test usually wants to see them."""
    response = await browser.get("/go/302?/there")
    assert response.status_code == 302
    assert response.headers["location"] == "/there"
    response = await browser.get("/go/302?/there", follow_redirects=True)
    assert response.text == "went=1|GET|/there|http|"
    assert response.url == "http://testserver/there"


@pytest.mark.parametrize(
    ("method", "status", "expected"),
    [
        ("POST", 301, "GET|/x|http|"),
        ("POST", 302, "GET|/x|http|"),
        ("PUT", 302, "PUT|/x|http|body"),
        ("PUT", 303, "GET|/x|http|"),
        ("POST", 307, "POST|/x|http|body"),
        ("POST", 308, "POST|/x|http|body"),
    ],
)
async def test_what_a_redirect_makes_of_the_method(
    browser: ASGIClient, method: str, status: int, expected: str
) -> None:
    """As browsers do: 303 asks with GET, 307 and 308 repeat the request, 301 and 302 turn POST into GET."""
    response = await browser.request(method, f"/go/{status}?/x", content=[b"body"], follow_redirects=True)
    assert response.text == f"went=1|{expected}"


async def test_a_redirect_leaves_head_a_head(browser: ASGIClient) -> None:
    """303 asks with GET only what was no HEAD."""
    response = await browser.head("/go/303?/x", follow_redirects=True)
    assert response.status_code == 200
    assert response.content == b""


async def test_redirects_may_be_relative_and_lead_elsewhere(browser: ASGIClient) -> None:
    """From the URL that answered; cookies follow their own rules."""
    assert (await browser.get("/go/302?../x", follow_redirects=True)).url == "http://testserver/x"
    response = await browser.get("/go/302?https://other.example/x", follow_redirects=True)
    assert response.text == "GET|/x|https|"


async def test_a_redirect_without_a_location_is_an_answer() -> None:
    """304 is none at all; and a 302 to nowhere cannot be followed."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, int(scope["path"][1:]), [])

    async with open_test_client(app) as client:
        assert (await client.get("/302", follow_redirects=True)).status_code == 302
        assert (await client.get("/304", follow_redirects=True)).status_code == 304


async def test_redirects_in_a_circle_end() -> None:
    """After 20 of them, as in browsers."""
    asked = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal asked
        assert scope["type"] == "http"
        asked += 1
        await respond(send, 302, [(b"location", b"/")])

    async with open_test_client(app) as client:
        with pytest.raises(RuntimeError, match="20 redirects"):
            await client.get("/", follow_redirects=True)
    assert asked == 21
