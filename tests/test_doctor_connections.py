"""`trio-session doctor` and servers that cannot be reached: its first line names the step that fails."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from trio_session import RedisConnection, SessionConfig
from trio_session.cli.doctor import Finding, _reaching, as_text, examine, exit_code

from .redis_servers import RedisServer, free_port
from .test_redis_connection import greeting
from .test_redis_tls import Papers, behind_tls, make_party, papers

__all__ = ["papers"]

LIMIT = 20.0  # seconds


async def diagnose(url: str, **settings: Any) -> list[Finding]:
    config = SessionConfig(driver="redis", redis={"default": RedisConnection(url=url)}, **settings)
    with trio.fail_after(LIMIT):
        return await examine(config)


async def assert_first_line(url: str, text: str, fix: str) -> None:
    """The first line names the cause, the second what to do; and no password shows."""
    findings = await diagnose(url)
    first, second = as_text(findings).splitlines()[:2]
    assert first.startswith("problem  ")
    assert text in first
    assert fix in second
    assert exit_code(findings) == 3
    assert "secret" not in as_text(findings)


@asynccontextmanager
async def talking(talk: bytes, *, hangs_up: bool = False) -> AsyncIterator[str]:
    """A server on a real socket that says the same to everybody; its URL."""

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.send_all(talk)
            if not hangs_up:
                await trio.sleep_forever()
            while await stream.receive_some():
                await stream.send_eof()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield f"redis://127.0.0.1:{listeners[0].socket.getsockname()[1]}/0"
        nursery.cancel_scope.cancel()


@pytest.fixture
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is waited for shortly."""
    monkeypatch.setattr(_reaching, "CONNECT_TIMEOUT", 0.5)


# -- the network ------------------------------------------------------------------------------------------------------


async def test_nobody_listens() -> None:
    """A server that does not run, or runs elsewhere."""
    url = f"redis://app:secret@127.0.0.1:{free_port()}/0"
    await assert_first_line(url, ": nobody listens there", "start the server, or say in REDIS_URL where it is")
    await assert_first_line(url.replace("127.0.0.1", "localhost"), ": nobody listens there", "start the server")


async def test_a_host_that_does_not_exist() -> None:
    """A name that nobody knows, as after a slip of the pen."""
    await assert_first_line("redis://nowhere.invalid", ": the name of its host is not known", "the host in REDIS_URL")


async def test_a_host_that_swallows_everything(in_a_hurry: None) -> None:
    """A firewall, say: there is not even a no."""
    with socket.socket() as deaf, socket.socket() as one, socket.socket() as other:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for client in (one, other):  # nobody accepts them, and there is no room for more
            client.setblocking(False)
            client.connect_ex(deaf.getsockname())
        url = f"redis://127.0.0.1:{deaf.getsockname()[1]}"
        await assert_first_line(url, ": no answer within", "correct REDIS_URL, or open the port")


async def test_sockets_that_are_not_there(tmp_path: Path) -> None:
    """The path is wrong, or is something else."""
    await assert_first_line(f"unix://{tmp_path}/none", ": there is no such socket", "say in REDIS_URL where it is")
    file = tmp_path / ("long" * 50)
    await assert_first_line(f"unix://{file}", f"unix://{file}: AF_UNIX path too long", "correct REDIS_URL")


async def test_a_socket_that_is_not_for_us(monkeypatch: pytest.MonkeyPatch) -> None:
    """It belongs to another user. Root may open any, so here the kernel's answer is made up."""

    async def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(trio, "open_unix_socket", refuse)
    await assert_first_line("unix:///run/r.sock", ": this user may not open the socket", "unixsocketperm 770")


# -- TLS --------------------------------------------------------------------------------------------------------------


async def test_tls_to_a_server_without(server: RedisServer, in_a_hurry: None) -> None:
    """rediss:// too much."""
    url = f"rediss://127.0.0.1:{server.port}"
    await assert_first_line(url, ": the server does not speak TLS on this port", "write redis:// instead of rediss://")


async def test_no_tls_to_a_server_with_it(server: RedisServer, papers: Papers) -> None:
    """rediss:// too little."""
    async with behind_tls(server, papers.server) as at:
        await assert_first_line(f"redis://{at}", ": the server speaks TLS on this port", "write rediss:// instead")


async def test_tls_to_something_else(in_a_hurry: None) -> None:
    """Neither TLS nor Redis."""
    async with talking(b"") as url:
        text = ": no TLS connection can be made: no answer"
        await assert_first_line(url.replace("redis", "rediss"), text, "see tls-port")
    async with talking(b"", hangs_up=True) as url:
        await assert_first_line(url.replace("redis", "rediss"), ": no TLS connection can be made: ", "see tls-port")


async def test_certificates_that_are_not_accepted(server: RedisServer, papers: Papers, tmp_path: Path) -> None:
    """From an unknown authority, for another name, or expired: each has its own cure."""
    async with behind_tls(server, papers.server) as at:
        await assert_first_line(f"rediss://{at}", "its certificate is not accepted", "?ssl_ca_certs=/path/to/ca.pem")
    async with behind_tls(server, papers.other_server) as at:
        url = f"rediss://{at}/0?ssl_ca_certs={papers.authority}"
        await assert_first_line(url, "not valid for '127.0.0.1'", "write the name that the certificate is for")
    authority = make_party("authority")
    old = make_party("old", issuer=authority, hosts=("127.0.0.1",), ends=dt.timedelta(minutes=-1))
    async with behind_tls(server, old.save(tmp_path / "old.pem")) as at:
        url = f"rediss://{at}/0?ssl_ca_certs={authority.save(tmp_path / 'authority.pem')}"
        await assert_first_line(url, "certificate has expired", "renew the server's certificate")


async def test_a_client_without_a_certificate(server: RedisServer, papers: Papers) -> None:
    """The server wants to see one of ours."""
    async with behind_tls(server, papers.server, clients_of=papers.authority) as at:
        url = f"rediss://{at}/0?ssl_ca_certs={papers.authority}"
        text = ": it ends the connection after the TLS handshake: it wants to see a certificate of ours, or"
        await assert_first_line(url, text, "?ssl_certfile=")
        findings = await diagnose(f"{url}&ssl_certfile={papers.client}&ssl_keyfile={papers.client}")
        assert exit_code(findings) == 0


async def test_a_server_that_says_that_it_wants_a_certificate(papers: Papers) -> None:
    """As Redis itself does; the proxy of the other test does not."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=papers.authority)
    context.load_cert_chain(papers.server)
    context.verify_mode = ssl.CERT_REQUIRED

    def refuse_two(listener: socket.socket) -> None:
        for _ in range(2):
            client, _ = listener.accept()
            with client, suppress(OSError):
                context.wrap_socket(client, server_side=True)

    async with trio.open_nursery() as nursery:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            nursery.start_soon(trio.to_thread.run_sync, refuse_two, listener)
            url = f"rediss://127.0.0.1:{listener.getsockname()[1]}/0?ssl_ca_certs={papers.authority}"
            await assert_first_line(url, ": it wants to see a certificate of ours, and does not", "?ssl_certfile=")


@pytest.mark.parametrize(
    ("talk", "text"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", ": it ends the connection, or what answers there is no Redis"),
        (b"", ": it ends the connection after the TLS handshake"),
    ],
)
async def test_something_else_behind_tls(papers: Papers, talk: bytes, text: str) -> None:
    """A web server, say, or a terminator of TLS whose own server is down."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(papers.server)

    async def serve(stream: trio.SSLStream[trio.SocketStream]) -> None:
        async with stream:
            await stream.send_all(talk)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_ssl_over_tcp, serve, 0, context, host="127.0.0.1"))
        port = listeners[0].transport_listener.socket.getsockname()[1]
        await assert_first_line(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={papers.authority}", text, "")
        nursery.cancel_scope.cancel()


async def test_a_socket_that_hangs_up(tmp_path: Path) -> None:
    """Whatever it is, it is no Redis."""

    async def hang_up(listener: trio.socket.SocketType) -> None:
        while True:
            client, _ = await listener.accept()
            client.close()

    with trio.socket.socket(trio.socket.AF_UNIX) as listener:
        await listener.bind(str(tmp_path / "socket"))
        listener.listen()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hang_up, listener)
            await assert_first_line(f"unix://{tmp_path}/socket", ": it ends the connection, or what answers", "")
            nursery.cancel_scope.cancel()


async def test_certificates_that_cannot_be_loaded(tmp_path: Path) -> None:
    """The file is not there: a setting is wrong, and there is nothing to connect to."""
    findings = await diagnose(f"rediss://localhost/0?ssl_ca_certs={tmp_path}/none")
    assert as_text(findings).startswith("wrong    the settings are wrong: url: the TLS certificates")
    assert exit_code(findings) == 2


# -- the log-in -------------------------------------------------------------------------------------------------------


@pytest.fixture
def guarded(server: RedisServer, client: Any) -> Any:
    """A server that wants a password, and has a user who is switched off."""
    client.execute_command("ACL SETUSER off off >secret ~* &* +@all")
    client.config_set("requirepass", "opensesame")
    client.execute_command("AUTH opensesame")
    yield server
    client.config_set("requirepass", "")
    client.execute_command("ACL DELUSER off")


async def test_passwords(guarded: RedisServer) -> None:
    """None, a wrong one, the right one; and a user who may not come in at all."""
    at = f"127.0.0.1:{guarded.port}"
    await assert_first_line(f"redis://{at}", ": it wants a user and a password, and none is given", "redis://user:")
    for login in (":secret", "nobody:secret", "off:secret"):
        await assert_first_line(f"redis://{login}@{at}", ": user or password are wrong, or the user is", "REDIS_URL")
    assert exit_code(await diagnose(f"redis://:opensesame@{at}")) == 0


async def test_a_database_that_does_not_exist(server: RedisServer) -> None:
    """There are sixteen, as a rule."""
    url = f"redis://127.0.0.1:{server.port}/99"
    await assert_first_line(url, ": database 99 cannot be used: ERR DB index is out of range", "take another one")


async def test_too_many_clients(server: RedisServer, client: Any) -> None:
    """The server has as many as it takes."""
    client.config_set("maxclients", 1)
    try:
        await assert_first_line(server.url, ": it has as many clients as it takes", "redis-cli CLIENT LIST")
    finally:
        client.config_set("maxclients", 10_000)


# -- what answers -----------------------------------------------------------------------------------------------------


async def test_a_frozen_server(server: RedisServer, in_a_hurry: None) -> None:
    """It takes the connection, or the kernel does, and then there is silence."""
    server.freeze()
    try:
        await assert_first_line(
            server.url, ": it takes the connection and then says nothing for", "redis-cli PING; top"
        )
    finally:
        server.thaw()


@pytest.mark.parametrize(
    ("talk", "text", "fix"),
    [
        (greeting("6.0.16"), ": Redis 6.0.16 is too old: 6.2 or newer is needed", "install Redis 6.2 or newer"),
        (b"-ERR unknown command `HELLO`, with args beginning with: `2`\r\n", ": the server is too old", "install"),
        (
            b"-LOADING Redis is loading the dataset in memory\r\n",
            ": it has just been started and is still load",
            "wait",
        ),
        (b"-DENIED Redis is running in protected mode\r\n", ": it is in protected mode", "give it a user"),
        (b"-NOPERM this user has no permissions\r\n", ": it wants a user and a password", "REDIS_URL"),
        (b"+OK\r\n", ": what answers there is no Redis", "correct host and port in REDIS_URL"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "what answers there is no Redis", "correct host and port in REDIS_URL"),
    ],
)
async def test_what_answers_will_not_do(talk: bytes, text: str, fix: str, in_a_hurry: None) -> None:
    """Too old, not ready, or something else altogether."""
    async with talking(talk) as url:
        await assert_first_line(url, text, fix)


async def test_a_refusal_that_nobody_knows() -> None:
    """Then the server's own words are the best there is."""
    async with talking(b"-EHLO who are you\r\n") as url:
        findings = await diagnose(url)
    assert [finding.text for finding in findings] == [f"{url}: it refuses us: EHLO who are you"]


async def test_a_server_that_goes_away_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is lost, or falls silent, after the log-in."""
    async with talking(greeting() + b"$0\r\n\r\n", hangs_up=True) as url:
        await assert_first_line(url, "the connection was lost meanwhile: the server closed", "see the server's log")
    monkeypatch.setattr("trio_session.cli.doctor._examination._PATIENCE", 0.3)
    async with talking(greeting() + b"$0\r\n\r\n") as url:
        await assert_first_line(url, ": it did not answer within 0.3 s", "see the server's log")


# -- other names ------------------------------------------------------------------------------------------------------


async def test_the_variable_of_another_connection() -> None:
    """What has to be changed is called by its own name."""
    url = f"redis://127.0.0.1:{free_port()}"
    config = SessionConfig(driver="redis", connection="my-cache", redis={"my-cache": RedisConnection(url=url)})
    assert "say in REDIS_MY_CACHE_URL where it is" in as_text(await examine(config))
