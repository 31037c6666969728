"""`trio_session.serving`: settings, versions, and an application that starts or ends in an odd way."""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from hypercorn.config import Config
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.integration._clients import connect, fetch, read_answer, request_head
from tests.integration._servers import ours, start
from tests.integration._serving import respond
from tests.test_redis_tls import make_party
from trio_session import serving
from trio_session._asgi import ASGIApp, Receive, Scope, Send
from trio_session.cli import main
from trio_session.serving import (
    AddressError,
    BreakdownError,
    ServingError,
    StartupError,
    _processes,
    _run,
    _server,
    _worker,
    run,
    serve,
)

Step = Callable[[Receive, Send], Any]


def app_with(lifespan: Step) -> ASGIApp:
    """An application with this lifespan, which answers everything."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
        else:
            await respond(send, b"done")

    return app


async def orderly(receive: Receive, send: Send) -> None:
    for _ in range(2):
        await send({"type": f"{(await receive())['type']}.complete"})


def quiet(**settings: Any) -> Config:
    return Config.from_mapping({"bind": "127.0.0.1:0", "errorlog": None, **settings})


# -- the start -------------------------------------------------------------------------------------------------------


async def hang(receive: Receive, send: Send) -> None:
    await trio.sleep_forever()


async def refuse_without_a_word(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed"})


async def refuse_and_raise(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})
    raise ValueError("no database")


@pytest.mark.parametrize(
    ("lifespan", "reason"),
    [
        (hang, r"it took longer than 60 s \(`startup_timeout`\)"),
        (refuse_without_a_word, "it does not say why"),
        (refuse_and_raise, "no database"),
    ],
)
async def test_an_application_that_does_not_start(lifespan: Step, reason: str, autojump_clock: MockClock) -> None:
    """The error is bare, and says why; the address is free again."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(StartupError, match=f"^{reason}$"):
        await serve(app_with(lifespan), quiet(bind=f"127.0.0.1:{port}"))
    socket.create_server(("127.0.0.1", port)).close()


async def test_an_application_that_does_not_speak_lifespan(caplog: pytest.LogCaptureFixture) -> None:
    """It is served, as the specification has it, and the log has what it said."""

    async def silent(receive: Receive, send: Send) -> None:
        raise NotImplementedError

    async with start(ours, app_with(silent), errorlog=logging.getLogger("here")) as server:
        assert (await fetch(server.url)).body == b"done"
    assert server.error is None
    assert "does not speak lifespan (NotImplementedError)" in caplog.text


async def test_addresses_that_cannot_be_used() -> None:
    """One that is taken is named, also among others; several workers do not share it with strangers who would."""
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        config = quiet(bind=["127.0.0.1:0", taken], workers=2)
        with pytest.raises(
            AddressError, match=rf"^cannot listen on 127\.0\.0\.1:0 and {taken}: Address already in use$"
        ):
            with trio.fail_after(10):
                await serve(app_with(orderly), config)


# -- the end ---------------------------------------------------------------------------------------------------------


async def crash_at_the_end(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    raise ValueError("cannot flush")


async def fail_at_the_end(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.failed", "message": "cannot flush"})
    await trio.sleep_forever()


async def fail_at_the_end_without_a_word(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.failed"})


async def hang_at_the_end(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await trio.sleep_forever()


async def talk_nonsense(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.completed"})


@pytest.mark.parametrize(
    ("lifespan", "reason"),
    [
        (crash_at_the_end, "ValueError: cannot flush"),
        (fail_at_the_end, "cannot flush"),
        (fail_at_the_end_without_a_word, "it does not say why"),
        (hang_at_the_end, "its end took longer than 5 s (`shutdown_timeout`)"),
        (talk_nonsense, "ValueError: a lifespan has no message 'lifespan.shutdown.completed'"),
    ],
)
async def test_an_application_that_does_not_end_well(lifespan: Step, reason: str, autojump_clock: MockClock) -> None:
    """What it could not finish is an error, after everything else has ended in order."""
    async with start(ours, app_with(lifespan), shutdown_timeout=5) as server:
        assert (await fetch(server.url)).body == b"done"
    assert isinstance(server.error, BreakdownError)
    assert str(server.error) == reason


async def test_a_server_that_is_cancelled(autojump_clock: MockClock) -> None:
    """Everything ends at once, and the address is free."""
    async with trio.open_nursery() as nursery:
        urls: list[str] = await nursery.start(serve, app_with(orderly), quiet())
        stream = await connect(urls[0])
        await wait_all_tasks_blocked(0.02)
        nursery.cancel_scope.cancel()
    async with stream:
        assert not await stream.receive_some()
    with pytest.raises(OSError, match="failed"):
        await connect(urls[0])


async def test_a_server_with_a_limit_of_requests() -> None:
    """With `max_requests` it ends by itself."""
    async with start(ours, app_with(orderly), max_requests=2) as server:
        for _ in range(3):
            assert (await fetch(server.url)).body == b"done"
        await server.ended.wait()
    assert server.error is None


async def test_a_trigger_that_fails() -> None:
    """An error in what should say when to stop stops the server, and comes out bare."""

    async def trigger() -> None:
        raise ValueError("no such signal")

    with pytest.raises(ValueError, match="no such signal"):
        await serve(app_with(orderly), quiet(), shutdown_trigger=trigger)


# -- connections -----------------------------------------------------------------------------------------------------


async def test_a_client_that_says_nothing_is_let_go(autojump_clock: MockClock) -> None:
    """After `keep_alive_timeout` an idle connection is closed, after `read_timeout` a silent one is, too."""
    hold = trio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return
        while (await receive())["type"] != "http.disconnect":
            pass
        hold.set()

    async with start(ours, app, keep_alive_timeout=3, read_timeout=5) as server:
        began = trio.current_time()
        async with await connect(server.url) as stream:
            assert not await stream.receive_some()
        assert trio.current_time() - began == pytest.approx(3, abs=0.5)
        async with await connect(server.url) as stream:
            await stream.send_all(request_head())
            await hold.wait()
        assert trio.current_time() - began == pytest.approx(8, abs=0.5)


async def test_http2_by_upgrade() -> None:
    """A client may ask for HTTP/2 in its first request, and gets its answer in it."""
    async with start(ours, app_with(orderly)) as server, await connect(server.url) as stream:
        upgrade = [(b"connection", b"upgrade, http2-settings"), (b"upgrade", b"h2c"), (b"http2-settings", b"")]
        await stream.send_all(request_head(headers=upgrade))
        received = b""
        while b"done" not in received:
            received += bytes(await stream.receive_some())
        assert received.startswith(b"HTTP/1.1 101")


async def test_an_application_that_fails_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """The client gets a 500, the log what the application raised, and no group around it."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            raise ValueError("oh no")

    async with start(ours, app, errorlog=logging.getLogger("here")) as server:
        assert (await fetch(server.url)).status == 500
    (record,) = [record for record in caplog.records if record.exc_info]
    assert record.exc_info is not None
    assert record.exc_info[0] is ValueError


# -- settings --------------------------------------------------------------------------------------------------------


async def test_tls(tmp_path: Path, autojump_clock: MockClock) -> None:
    """With a certificate it speaks HTTPS and HTTP/2, beside an address without; no handshake takes for ever."""
    paper = make_party("server", hosts=("127.0.0.1",)).save(tmp_path / "server.pem")
    settings = {
        "certfile": str(paper),
        "keyfile": str(paper),
        "insecure_bind": "127.0.0.1:0",
        "ssl_handshake_timeout": 2,
    }
    async with start(ours, app_with(orderly), **settings) as server:
        assert server.url.startswith("https://127.0.0.1:")
        assert server.urls[1].startswith("http://127.0.0.1:")
        assert (await fetch(server.urls[1])).body == b"done"
        async with httpx.AsyncClient(verify=False, http2=True) as client:
            answer = await client.get(server.url)
        assert (answer.http_version, answer.text) == ("HTTP/2", "done")
        async with httpx.AsyncClient(verify=False) as client:
            assert (await client.get(server.url)).text == "done"
        async with await connect(server.url) as plain:
            await plain.send_all(request_head())
            with suppress(trio.BrokenResourceError):
                while await plain.receive_some():
                    pass
        async with await connect(server.url) as silent:
            assert not await silent.receive_some()
    assert server.error is None


async def test_http3_is_left_to_hypercorn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is served as it is, on the same addresses, and the log says so."""
    served: list[str] = []

    async def as_it_is(app: object, config: Config, **options: object) -> None:
        for address in (*config.bind, *config.insecure_bind, *config.quic_bind):
            with socket.socket(fileno=int(address.removeprefix("fd://"))) as inherited:
                served.append(f"{inherited.type.name} {inherited.getsockname()[0]}")

    monkeypatch.setattr(_server, "serve_plainly", as_it_is)
    paper = str(make_party("server", hosts=("127.0.0.1",)).save(tmp_path / "server.pem"))
    log = logging.getLogger("here")
    config = quiet(certfile=paper, keyfile=paper, insecure_bind="127.0.0.2:0", quic_bind="127.0.0.1:0", errorlog=log)
    await serve(app_with(orderly), config)
    assert served == ["SOCK_STREAM 127.0.0.1", "SOCK_STREAM 127.0.0.2", "SOCK_DGRAM 127.0.0.1"]
    assert "The traps of HTTP/3 are not known here: Hypercorn serves as it is" in caplog.text


async def test_unix_sockets(tmp_path: Path) -> None:
    """They are served like others, and their URL says where they are."""
    path = tmp_path / "here.sock"
    async with start(ours, app_with(orderly), bind=f"unix:{path}") as server:
        assert server.url == f"http://unix:{path}"
        async with await trio.open_unix_socket(str(path)) as stream:
            await stream.send_all(request_head())
            assert (await read_answer(stream)).body == b"done"


async def test_a_hypercorn_that_is_not_known(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """It serves as it is, and the log says so once; failures are told like ours."""
    monkeypatch.setattr(_server, "CHECKED", frozenset[str]())
    async with start(ours, app_with(orderly), errorlog=logging.getLogger("here")) as server:
        assert (await fetch(server.url)).body == b"done"
    assert server.error is None
    assert caplog.text.count("are not known here: Hypercorn serves as it is") == 1
    broken = trio.Event()

    async def break_down(receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await broken.wait()
        await send({"type": "lifespan.shutdown.failed", "message": "no pool"})

    async with start(ours, app_with(break_down)) as server:
        broken.set()
        await server.ended.wait()
    assert isinstance(server.error, BreakdownError)
    assert "no pool" in str(server.error)


# -- run() -----------------------------------------------------------------------------------------------------------


def test_run_writes_its_process_id(tmp_path: Path) -> None:
    """`pid_path` is where others look for the process that they send signals to."""

    def stop(urls: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    run(app_with(orderly), quiet(pid_path=str(tmp_path / "pid")), announce=stop)
    assert (tmp_path / "pid").read_text() == str(os.getpid())


class Impatient(logging.Handler):
    """Sets an event as soon as it is said where the server is."""

    def __init__(self) -> None:
        super().__init__()
        self.heard = trio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith("Running on"):
            self.heard.set()


@pytest.mark.parametrize("attempt", range(10))  # of two tasks that are due at the same time either may run first
async def test_an_end_that_is_asked_for_with_the_first_word(attempt: int) -> None:
    """The server has started by then, so the lifespan of its application ends in order."""
    log, impatient, ending = logging.getLogger(f"here.{attempt}"), Impatient(), _run.Ending()
    log.setLevel(logging.INFO)
    log.addHandler(impatient)
    heard: list[str] = []

    async def listen(receive: Receive, send: Send) -> None:
        for _ in range(2):
            heard.append((await receive())["type"])
            await send({"type": f"{heard[-1]}.complete"})

    async def end() -> None:
        await impatient.heard.wait()
        ending.gracefully()

    config = quiet(errorlog=log)
    app = _run.load(app_with(listen), config)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(end)
        await _run.serve_until_told(_server.make_sockets(config), app, config, ending, lambda _: None)
    assert heard == ["lifespan.startup", "lifespan.shutdown"]


def test_what_start_up_has_made_is_no_business_of_the_garbage_collector() -> None:
    """By the time that requests come it looks at them alone: all of it again would make some of them wait."""
    frozen = [gc.get_freeze_count()]

    def stop(urls: object) -> None:
        frozen.append(gc.get_freeze_count())
        signal.raise_signal(signal.SIGTERM)

    run(app_with(orderly), quiet(), announce=stop)
    assert frozen[1] > frozen[0]


def test_run_with_workers_needs_a_name() -> None:
    """Processes cannot share an application; they import it."""
    with pytest.raises(ValueError, match=r"give its name, like run\('module:app', config\)"):
        run(app_with(orderly), quiet(workers=2))


def test_settings_that_cannot_be_handed_to_workers() -> None:
    """A setting that is bound to this process is refused with several."""
    config = quiet(workers=2)
    config.verify_flags = lambda: None  # type: ignore[assignment]
    with pytest.raises(ServingError, match="the settings cannot be handed to workers: "):
        run("module:app", config)


def test_an_application_that_is_not_there_leaves_its_address() -> None:
    """Whoever runs the program again with the right name finds the address free."""
    with pytest.raises(StartupError, match="there is no module 'nowhere'"):
        run("nowhere:app", quiet())


CONFIGURATION = """
bind = "127.0.0.1:0"
graceful_timeout = 7
keep_alive_timeout = 11
"""


@pytest.mark.parametrize("place", ["{}/hypercorn.toml", "file:{}/settings.py", "python:serving_settings"])
def test_the_configuration_is_that_of_hypercorn(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From a file of either kind, or a module; an option in the command line wins."""
    for name in ("hypercorn.toml", "settings.py", "serving_settings.py"):
        (tmp_path / name).write_text(CONFIGURATION)
    monkeypatch.syspath_prepend(tmp_path)
    seen: list[Config] = []

    def record(app: object, config: Config, **_: object) -> None:
        seen.append(config)

    monkeypatch.setattr(serving, "run", record)
    arguments = ["-c", place.format(tmp_path), "--graceful-timeout", "9.5", "-w", "3", "--root-path", "/shop"]
    assert main(["serve", *arguments, "module:app"]) == 0
    (config,) = seen
    assert config.bind == ["127.0.0.1:0"]
    assert (config.graceful_timeout, config.keep_alive_timeout) == (9.5, 11)
    assert (config.workers, config.root_path) == (3, "/shop")
    assert main(["serve", *arguments, "-b", "127.0.0.1:1", "-b", "unix:x", "module:app"]) == 0
    assert seen[1].bind == ["127.0.0.1:1", "unix:x"]
    assert capsys.readouterr().err == ""


def test_a_configuration_that_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is named, with what is wrong with it."""
    assert main(["serve", "-c", f"{tmp_path}/nowhere.toml", "module:app"]) == 2
    assert "nowhere.toml cannot be used: FileNotFoundError: " in capsys.readouterr().err


def test_other_failures_have_an_exit_code(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What is neither the address nor the application is a matter of the settings."""

    def fail(*_: object, **__: object) -> None:
        raise ServingError("the settings cannot be handed to workers")

    monkeypatch.setattr(serving, "run", fail)
    assert main(["serve", "module:app"]) == 2
    assert capsys.readouterr().err == "trio-session: the settings cannot be handed to workers\n"


async def test_an_upload_over_http2_is_read_to_its_end() -> None:
    """What comes in pieces arrives whole, also if it is larger than a window."""
    total = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal total
        if scope["type"] == "http":
            while (message := await receive()).get("more_body"):
                total += len(message["body"])
            await respond(send, b"%d" % total)

    async with start(ours, app) as server, httpx.AsyncClient(http1=False, http2=True) as client:
        answer = await client.post(server.url, content=b"x" * 300_000)
        assert (answer.http_version, answer.text) == ("HTTP/2", "300000")


def test_a_worker_without_a_parent_ends() -> None:
    """If whoever started it died before it said what to serve, there is nothing to serve."""
    ours_, theirs = socket.socketpair()
    ours_.close()
    _worker.main(theirs.detach())


def test_workers_get_settings_and_nothing_else() -> None:
    """A configuration that was made from a module has that module's other names, too; they are left behind."""
    config = quiet(graceful_timeout=7, helper=lambda: None)
    portable = _processes._portable(config)
    assert portable.graceful_timeout == 7
    assert not hasattr(portable, "helper")
    assert hasattr(config, "helper")
