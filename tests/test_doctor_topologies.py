"""`trio-session doctor` and `stats` on Sentinels and clusters: which server of them all is in trouble, and why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import trio

from trio_session import RedisConnection, SessionConfig, open_session_manager
from trio_session.cli import main
from trio_session.cli.doctor import Finding, as_text, examine, exit_code

from .redis_servers import RedisServer, free_port
from .redis_topologies import Cluster, Replicated, ask, redis_cluster, replicated_redis, wait
from .test_redis_trouble import ACL

LIMIT = 25.0  # seconds


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    # Nothing here is about a failover: no node is to lose its place because a busy machine lets it wait.
    with redis_cluster(cluster_node_timeout=10_000) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def replicated() -> Iterator[Replicated]:
    with replicated_redis() as replicated:
        yield replicated


def config(url: str) -> SessionConfig:
    return SessionConfig(driver="redis", redis={"default": RedisConnection(url=url)})


async def diagnose(url: str) -> list[Finding]:
    with trio.fail_after(LIMIT):
        return await examine(config(url))


async def assert_first_line(url: str, level: str, text: str, fix: str) -> None:
    findings = await diagnose(url)
    first, second = as_text(findings).splitlines()[:2]
    assert first.startswith(f"{level:8} ")
    assert text in first
    assert fix in second


async def store(url: str, count: int) -> None:
    async with open_session_manager(config(url)) as manager, trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(manager.session().put, "name", "Ada")


def count(url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    monkeypatch.setenv("SESSION_DRIVER", "redis")
    monkeypatch.setenv("REDIS_URL", url)
    assert main(["stats", "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


# -- a cluster --------------------------------------------------------------------------------------------------------


async def test_a_healthy_cluster(cluster: Cluster) -> None:
    """Each primary is looked at; a plain URL of one of them finds the others, too. Nothing stays behind on any."""
    for server in cluster.primaries():
        ask(server, "FLUSHALL")
    for url in (cluster.url, cluster.primaries()[0].url):
        findings = await diagnose(url)
        assert exit_code(findings) == 0
        text = as_text(findings)
        assert "3 primaries have all slots" in text
        for server in cluster.primaries():
            assert f"redis://127.0.0.1:{server.port}/0: the user default may do what is needed" in text
            assert f"redis://127.0.0.1:{server.port}/0: its replica keeps up" in text
            assert ask(server, "DBSIZE") == 0


def test_the_sessions_of_a_cluster(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Node by node, and all together; a URL of one of them will do."""
    for server in cluster.primaries():
        ask(server, "FLUSHALL")
    trio.run(store, cluster.url, 60)
    found = count(cluster.url, monkeypatch, capsys)
    parts = {each["server"]: each["sessions"] for each in found["servers"]}
    assert set(parts) == {f"redis://127.0.0.1:{server.port}/0" for server in cluster.primaries()}
    assert all(parts.values())
    assert sum(parts.values()) == found["total"]["sessions"] == 60
    assert count(cluster.primaries()[1].url, monkeypatch, capsys) == found
    assert main(["stats"]) == 0
    assert "\nall\n  sessions  60, " in capsys.readouterr().out


async def test_rights_on_a_cluster(cluster: Cluster) -> None:
    """They are needed on each node; the node that lacks one is named, and what it says to type cures it."""
    url = cluster.url.replace("//", "//app:secret@")
    for server in cluster.servers:
        ask(server, "ACL", "SETUSER", "app", "on", ">secret", *ACL.split(), "+scan")
    text, rights = "the user app may not ask about the cluster: NOPERM", "+cluster|slots +cluster|info +asking"
    await assert_first_line(url, "problem", text, f"redis-cli ACL SETUSER app {rights}   # on each node")
    for server in cluster.servers:
        ask(server, "ACL", "SETUSER", "app", *rights.split())
    assert exit_code(await diagnose(url)) == 0
    node = cluster.primaries()[1]
    ask(node, "ACL", "SETUSER", "app", "-hset")
    text = f"redis://127.0.0.1:{node.port}/0: the user app may not run hset"
    await assert_first_line(url, "problem", text, "redis-cli ACL SETUSER app +hset")


async def test_a_cluster_with_a_hole(cluster: Cluster) -> None:
    """Slots without a server are counted, and what it says to type would mend it."""
    seed, primary = cluster.servers[0], cluster.primaries()[0]
    for server in cluster.servers:
        ask(server, "CLUSTER", "DELSLOTS", *range(10))
    try:
        text, fix = ": 10 of 16384 slots have no server", f"redis-cli --cluster fix 127.0.0.1:{seed.port}"
        await assert_first_line(cluster.url, "problem", text, fix)
    finally:
        ask(primary, "CLUSTER", "ADDSLOTS", *range(10))
        cluster.settle()


async def test_a_cluster_without_a_replica(cluster: Cluster) -> None:
    """One that is missing is noticed before it is needed; so is a node of the URL that is away."""
    primary = cluster.primaries()[0]
    (replica,) = cluster.replicas_of(primary)
    replica.kill()
    try:
        await trio.to_thread.run_sync(wait, lambda: b"connected_slaves:0" in ask(primary, "INFO"))
        text = f"redis://127.0.0.1:{primary.port}/0: it has no replica"
        await assert_first_line(cluster.url, "warning", text, "start one")
        url = f"{cluster.url},127.0.0.1:{replica.port}"
        text = f"redis://127.0.0.1:{replica.port}/0: nobody listens there"
        await assert_first_line(url, "warning", text, "say in REDIS_URL where it is")
    finally:
        replica.start()
        await trio.to_thread.run_sync(cluster.settle)


async def test_a_node_that_is_away(cluster: Cluster) -> None:
    """Until its replica has taken over its sessions are away, and no others."""
    node = cluster.primaries()[2]
    ask(cluster.replicas_of(node)[0], "CONFIG", "SET", "cluster-replica-no-failover", "yes")
    node.freeze()
    try:
        findings = await diagnose(cluster.url.replace(f",127.0.0.1:{node.port}", ""))
        assert exit_code(findings) == 3
        (problem,) = [finding for finding in findings if finding.level == "problem"]
        assert f"redis://127.0.0.1:{node.port}/0: it takes the connection and then says nothing" in problem.text
        assert "a session was locked" not in as_text(findings)
    finally:
        node.thaw()
        await trio.to_thread.run_sync(cluster.settle)
        ask(cluster.replicas_of(node)[0], "CONFIG", "SET", "cluster-replica-no-failover", "no")


async def test_a_server_that_is_no_cluster(server: RedisServer) -> None:
    """The URL says so, and is wrong."""
    url = server.url.replace("redis://", "redis+cluster://").removesuffix("/0")
    await assert_first_line(
        url, "problem", ": it is not part of a cluster", "write redis:// instead of redis+cluster://"
    )


# -- Sentinels --------------------------------------------------------------------------------------------------------


async def test_a_healthy_primary(
    replicated: Replicated, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is found, and looked at."""
    findings = await diagnose(replicated.url)
    assert exit_code(findings) == 0
    text = as_text(findings)
    primary = f"127.0.0.1:{replicated.primary().port}"
    assert f"3 Sentinels say that the primary is {primary}" in text
    assert f"redis://{primary}/0: its 2 replicas keep up" in text


def test_the_sessions_of_a_primary(
    replicated: Replicated, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are counted where they are now."""
    ask(replicated.primary(), "FLUSHALL")
    trio.run(store, replicated.url, 3)
    (found,) = count(replicated.url, monkeypatch, capsys)["servers"]
    assert (found["server"], found["sessions"]) == (replicated.primary().url, 3)


async def test_a_service_that_nobody_knows(replicated: Replicated) -> None:
    """The names that they know are shown."""
    url = replicated.url.replace("/sessions/", "/session/")
    text = ": the Sentinels know no primary called session"
    await assert_first_line(url, "problem", text, "write one of theirs into REDIS_URL: sessions")


async def test_rights_at_the_sentinels(replicated: Replicated) -> None:
    """What is missing can be typed."""
    for sentinel in replicated.sentinels:
        ask(sentinel, "ACL", "SETUSER", "asker", "on", ">secret", "+ping")
    url = f"{replicated.url}?sentinel_username=asker&sentinel_password=secret"
    text, fix = ": the user asker may not ask the Sentinels: NOPERM", "ACL SETUSER asker '+sentinel|get-master-addr"
    await assert_first_line(url, "problem", text, fix)
    url = url.replace("secret", "wrong")
    await assert_first_line(url, "problem", ": user or password are wrong", "sentinel_password")


async def test_which_is_a_sentinel(replicated: Replicated) -> None:
    """The URL of the one given for the other."""
    sentinel, server = replicated.sentinels[0], replicated.servers[0]
    fix = f"write redis+sentinel://127.0.0.1:{sentinel.port}/<name of the primary>/0 into REDIS_URL"
    await assert_first_line(sentinel.url, "problem", ": it is a Sentinel, and has no sessions itself", fix)
    url = f"redis+sentinel://127.0.0.1:{server.port}/sessions/0"
    await assert_first_line(url, "problem", ": it is no Sentinel", "write redis:// into REDIS_URL")


async def test_sentinels_that_are_away() -> None:
    """One is a warning; most of them, and no other primary could be chosen; all of them, and nobody knows."""
    with replicated_redis() as replicated:
        url = replicated.url
        first, second, third = replicated.sentinels
        first.kill()
        text = f"redis://127.0.0.1:{first.port}: nobody listens there"
        await assert_first_line(url, "warning", text, "say in REDIS_URL")
        second.kill()
        await trio.to_thread.run_sync(wait, lambda: b"NOQUORUM" in _quorum(third))
        findings = await diagnose(url)
        assert exit_code(findings) == 1
        assert "the Sentinels cannot choose another one: NOQUORUM" in as_text(findings)
        primary = replicated.primary()
        for server in replicated.servers:
            server.kill()
        await trio.to_thread.run_sync(wait, lambda: b"s_down" in _flags(third))
        text = f"redis://127.0.0.1:{primary.port}/0: nobody listens there"
        await assert_first_line(url, "problem", text, "say in replica-announce-ip and -port (redis.conf) where it is")
        assert "the Sentinels say that the primary, " in as_text(await diagnose(url))
        third.kill()
        await assert_first_line(url, "problem", ": nobody listens there", "say in REDIS_URL")


def _quorum(sentinel: RedisServer) -> bytes:
    try:
        return bytes(ask(sentinel, "SENTINEL", "CKQUORUM", "sessions"))
    except Exception as error:  # noqa: BLE001 - whatever redis-py makes of the error reply
        return str(error).encode()


def _flags(sentinel: RedisServer) -> bytes:
    said = ask(sentinel, "SENTINEL", "MASTER", "sessions")
    return bytes(dict(zip(said[::2], said[1::2], strict=True))[b"flags"])


def test_nobody_can_be_asked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Stats says so in one line."""
    monkeypatch.setenv("SESSION_DRIVER", "redis")
    monkeypatch.setenv("REDIS_URL", f"redis+sentinel://127.0.0.1:{free_port()}/sessions/0")
    assert main(["stats"]) == 3
    assert capsys.readouterr().err.endswith("; trio-session doctor says more\n")
