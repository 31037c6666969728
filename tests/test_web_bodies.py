"""The body in Quart's other ways: as attributes, without keeping it, and within a time."""

from __future__ import annotations

from math import inf

import pytest
import trio
from trio.testing import MockClock, assert_checkpoints

from trio_session.web import App, HTTPException, Request

from .web_peer import Peer, ask

FORM = [("Content-Type", "application/x-www-form-urlencoded")]
JSON = [("Content-Type", "application/json")]
FILES = [("Content-Type", "multipart/form-data; boundary=AaB03x")]
ONE_FILE = (
    b'--AaB03x\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\nx\r\n'
    b'--AaB03x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--AaB03x--\r\n'
)


@pytest.fixture
def app() -> App:
    return App(sessions=False)


async def test_data_is_what_is_no_form(app: App) -> None:
    """As in Flask: a form is in `form` and `files`, everything else in `data`; `get_data()` does not care."""

    @app.post("/")
    async def show(request: Request) -> list[object]:
        with assert_checkpoints():
            data = await request.data
        assert await request.get_data(parse_form_data=True, as_text=True) == data.decode()
        return [data.decode(), len(await request.form), len(await request.files)]

    assert (await ask(app, method="POST", body=b"a=1")).json() == ["a=1", 0, 0]
    assert (await ask(app, method="POST", headers=FORM, body=b"a=1")).json() == ["", 1, 0]
    assert (await ask(app, method="POST", headers=FILES, body=ONE_FILE)).json() == ["", 1, 1]


async def test_json_as_an_attribute(app: App) -> None:
    """`await request.json` is `await request.get_json()`."""

    @app.post("/")
    async def show(request: Request) -> list[object]:
        with assert_checkpoints():
            value = await request.json
        assert await request.get_json() is value
        return [value]

    assert (await ask(app, method="POST", headers=JSON, body=b"[1]")).json() == [[1]]
    assert (await ask(app, method="POST", body=b"[1]")).status == 415


async def test_values_are_those_of_the_query_and_the_form(app: App) -> None:
    """The query first; the body of a GET does not count."""

    @app.route("/", methods=["GET", "POST"])
    async def show(request: Request) -> list[object]:
        with assert_checkpoints():
            values = await request.values
        return [values["a"], values.getlist("a"), values.get("b")]

    assert (await ask(app, "/?a=1", method="POST", headers=FORM, body=b"a=2&b=3")).json() == ["1", ["1", "2"], "3"]
    assert (await ask(app, "/?a=1", headers=FORM, body=b"a=2&b=3")).json() == ["1", ["1"], None]
    assert (await ask(app, method="POST", headers=FORM, body=b"b=3")).status == 400


@pytest.mark.parametrize("first", ["data", "json"])
async def test_a_body_that_is_not_kept(app: App, first: str) -> None:
    """`cache=False` hands the memory over: whoever asks again is told that the body is gone, not that it was empty."""

    @app.post("/")
    async def show(request: Request) -> str:
        if first == "data":
            assert await request.get_data(cache=False) == b"[1]"
        else:
            assert await request.get_json(cache=False) == [1]
        for again in (request.get_data, request.get_json):
            with pytest.raises(RuntimeError, match="it was read with cache=False"):
                await again()
        with pytest.raises(RuntimeError, match="it was read with cache=False"):
            await anext(request.body)
        return "gone"

    assert (await ask(app, method="POST", headers=JSON, body=b"[1]")).text == "gone"


async def test_json_is_known_without_its_body(app: App) -> None:
    """What was decoded stays, whatever becomes of the bytes; `cache=False` decodes anew."""

    @app.post("/")
    async def show(request: Request) -> list[object]:
        value = await request.get_json()
        other: list[object] = await request.get_json(cache=False)
        assert other is not value
        with assert_checkpoints():
            assert await request.get_json() is value
        return other

    assert (await ask(app, method="POST", headers=JSON, body=b"[1]")).json() == [1]


async def test_a_body_that_does_not_come_is_408(app: App, autojump_clock: MockClock) -> None:
    """After a minute, unless the App or the handler says otherwise; whatever it is read as."""

    @app.post("/<how>")
    async def show(request: Request, how: str) -> str:
        match how:
            case "data":
                await request.get_data()
            case "json":
                await request.get_json(force=True)
            case "form":
                await request.form
            case _:
                request.body_timeout = 5
                await request.files
        return "never"

    for how, headers, seconds in [("data", [], 60), ("json", [], 60), ("form", FORM, 60), ("files", FILES, 5)]:
        before = trio.current_time()
        peer = Peer(app, f"/{how}", method="POST", headers=headers, body=None)
        peer.say_body(b"--AaB03x", more=True)
        await peer.run()
        assert peer.status == 408
        # One second more is the patience with an unread body.
        assert trio.current_time() - before == seconds + 1
    app.body_timeout = 7
    before = trio.current_time()
    await Peer(app, "/data", method="POST", body=None).run()
    assert trio.current_time() - before == 8


async def test_a_slow_body_may_be_waited_for(app: App, autojump_clock: MockClock) -> None:
    """`inf` is no limit, `request.body` has none, and after a 408 the next call takes up what has arrived."""

    @app.post("/<how>")
    async def show(request: Request, how: str) -> str:
        if how == "stream":
            return b"|".join([chunk async for chunk in request.body]).decode()
        if how == "again":
            with pytest.raises(HTTPException):
                await request.get_data()
        request.body_timeout = inf
        return await request.get_data(as_text=True)

    for how, text in [("all", "onetwo"), ("again", "onetwo"), ("stream", "one|two")]:
        peer = Peer(app, f"/{how}", method="POST", body=None)
        peer.say_body(b"one", more=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.run)
            await trio.sleep(100)
            peer.say_body(b"two")
        assert peer.text == text


async def test_half_a_form_is_none(app: App, autojump_clock: MockClock) -> None:
    """A form with files that was broken off is not taken up again: part of it is read away."""

    @app.post("/")
    async def show(request: Request) -> str:
        with pytest.raises(HTTPException):
            await request.form
        with pytest.raises(RuntimeError, match="it was read as a form"):
            await request.form
        return "told"

    peer = Peer(app, method="POST", headers=FILES, body=None)
    peer.say_body(ONE_FILE[:50], more=True)
    await peer.run()
    assert peer.text == "told"
