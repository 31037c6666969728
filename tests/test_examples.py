"""The examples do what their first lines say: each as a process, in real time, with a bound on every wait."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import trio
from trio_websocket import WebSocketConnection, open_websocket_url

from .test_cli import PATIENCE, Child, open_child

EXAMPLES = Path(__file__).parent.parent / "examples"


@asynccontextmanager
async def open_example(name: str, *arguments: str) -> AsyncIterator[tuple[Child, str]]:
    """Run an example that serves, and stop it as Ctrl-C does: that has to be a good end, and a silent one."""
    async with open_child(str(EXAMPLES / name), *arguments, "--port", "0") as child:
        yield child, await child.url()
        assert await child.stop() == 0
        assert child.errors() == ""


def open_browser(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, timeout=PATIENCE, follow_redirects=True)


async def test_counter() -> None:
    """It counts each visitor's visits, also those at the same moment, under one id."""
    async with open_example("counter.py") as (_, url), open_browser(url) as ada, open_browser(url) as bob:
        first = await ada.get("/visits")
        assert first.json() == {"visits": 1}
        id = first.cookies["trio_session"]
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(ada.get, "/visits")
        last = await ada.get("/visits")
        assert last.json() == {"visits": 22}
        assert ada.cookies["trio_session"] == id
        assert (await bob.get("/visits")).json() == {"visits": 1}


async def test_login() -> None:
    """Logging in renews the id and keeps the cart; the old id is worth nothing; logging out leaves nothing."""
    async with open_example("login.py") as (_, url), open_browser(url) as ada, open_browser(url) as thief:
        page = await ada.post("/cart", data={"item": "<b>tea</b>"})
        assert "Hello, stranger" in page.text
        assert "cart: &lt;b&gt;tea&lt;/b&gt;" in page.text
        planted = ada.cookies["trio_session"]

        refused = await ada.post("/login", data={"user": "Ada", "password": "guess"})
        assert refused.status_code == 403
        assert ada.cookies["trio_session"] == planted
        page = await ada.post("/login", data={"user": "Ada", "password": "open sesame"})
        assert "Hello, Ada" in page.text
        assert "cart: &lt;b&gt;tea" in page.text
        assert ada.cookies["trio_session"] != planted

        thief.cookies.set("trio_session", planted)
        page = await thief.get("/")
        assert "Hello, stranger" in page.text
        assert "cart: nothing" in page.text

        page = await ada.post("/logout")
        assert "Hello, stranger" in page.text
        assert "cart: nothing" in page.text
        assert "trio_session" not in ada.cookies


async def test_plain_asgi() -> None:
    """An application without a framework has sessions as well."""
    async with open_example("plain_asgi.py") as (_, url), open_browser(url) as browser:
        assert (await browser.get("/a")).text == "Page 1 of your visit. The last ones: /a\n"
        await browser.get("/b")
        await browser.get("/c")
        assert (await browser.get("/d")).text == "Page 4 of your visit. The last ones: /d /c /b\n"


async def heard(ws: WebSocketConnection) -> str:
    with trio.fail_after(PATIENCE):
        return str(await ws.get_message())


async def test_chat() -> None:
    """What one says, all hear, with who it was; and who comes back with the cookie is known."""
    async with open_example("chat_websocket.py", "serve") as (_, url):
        room = url.replace("http", "ws") + "/room"
        port = url.rpartition(":")[2]
        talk = (str(EXAMPLES / "chat_websocket.py"), "talk", "--port", port, "--name", "Böb & Co")
        async with open_websocket_url(f"{room}?name=Ada") as ada, open_child(*talk) as bob:
            assert await heard(ada) == "Ada is here."
            assert await heard(ada) == "Böb & Co is here."
            assert await bob.line() == "Böb & Co is here."
            await ada.send_message("hello")
            assert await bob.line() == await heard(ada) == "Ada (1): hello"
            await bob.type("hi!\n")
            assert await bob.line() == await heard(ada) == "Böb & Co (1): hi!"
            await bob.end_input()
            assert await bob.end() == 0
            assert await heard(ada) == "Böb & Co has left."
        (cookie,) = [value.partition(b";")[0] for name, value in ada.handshake_headers if name == b"set-cookie"]
        async with open_websocket_url(room, extra_headers=[(b"cookie", cookie)]) as again:
            assert await heard(again) == "Ada is here."
            await again.send_message("back again")
            assert await heard(again) == "Ada (2): back again"


async def test_chat_refuses_other_sites() -> None:
    """A page of another site cannot enter the room in its visitor's name."""
    handshake = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Origin": "https://elsewhere.example",
    }
    async with open_example("chat_websocket.py", "serve") as (_, url), open_browser(url) as browser:
        assert (await browser.get("/room", headers=handshake)).status_code == 403


async def test_chat_ends_with_the_server() -> None:
    """Whoever talks when the server is stopped is sent home, and the server does not wait for them."""
    async with open_child(str(EXAMPLES / "chat_websocket.py"), "serve", "--port", "0") as server:
        port = (await server.url()).rpartition(":")[2]
        talk = (str(EXAMPLES / "chat_websocket.py"), "talk", "--port", port, "--name", "Ada")
        async with open_child(*talk) as ada:
            assert await ada.line() == "Ada is here."
            assert await server.stop() == 0
            assert await ada.end() == 0


async def test_background_job() -> None:
    """Eight workers at one account: no booking is lost."""
    async with open_child(str(EXAMPLES / "background_job.py")) as child:
        assert await child.line() == "8 workers, 25 bookings each: the balance is 200"
        assert await child.end() == 0
        assert child.errors() == ""


async def test_the_port_may_come_from_the_environment() -> None:
    """As platforms do it that assign one."""
    async with open_child(str(EXAMPLES / "counter.py"), environment={"PORT": "0"}) as child:
        async with open_browser(await child.url()) as browser:
            assert (await browser.get("/visits")).json() == {"visits": 1}
        assert await child.stop() == 0


@pytest.mark.parametrize(
    ("name", "path", "status"),
    [("counter", "/visits", 200), ("login", "/", 200), ("plain_asgi", "/", 200), ("chat_websocket", "/room", 400)],
)
async def test_hypercorn_serves_them(name: str, path: str, status: int) -> None:
    """`hypercorn -k trio counter:app` in their folder does it as well."""
    command = ("-m", "hypercorn", "-k", "trio", "--bind", "127.0.0.1:0", f"{name}:app")
    async with open_child(*command, folder=str(EXAMPLES), joined=True) as child:
        async with open_browser(await child.url()) as browser:
            answer = await browser.get(path)
        assert answer.status_code == status
        assert await child.stop() == 0
