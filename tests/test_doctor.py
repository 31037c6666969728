"""`trio-session doctor` on servers that answer: its first line names the worst, its second what to type."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from trio_session import EncryptedCodec, RedisConnection, SessionConfig, open_session_manager
from trio_session.cli import main
from trio_session.cli.doctor import Finding, _health, as_text, examine, exit_code
from trio_session.cli.doctor._rights import NICE_TO_HAVE, VITAL

from .faults._proxy import open_proxy
from .faults.test_refusals import broken_disk
from .redis_servers import RedisServer, free_port, redis_server
from .test_redis_trouble import ACL

LIMIT = 20.0  # seconds
OLD, NEW = EncryptedCodec.new_key(), EncryptedCodec.new_key()


@pytest.fixture
def server(running: RedisServer) -> Iterator[RedisServer]:
    """An empty one, without limits and users; as it was, afterwards."""
    with running.client() as client:
        client.flushall()
        yield running
        client.config_set("maxmemory", 0)
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("min-replicas-to-write", 0)
        client.execute_command("ACL DELUSER app")
        client.replicaof("NO", "ONE")


def config(url: str, **settings: Any) -> SessionConfig:
    return SessionConfig(driver="redis", redis={"default": RedisConnection(url=url)}, **settings)


async def diagnose(url: str, **settings: Any) -> list[Finding]:
    with trio.fail_after(LIMIT):
        return await examine(config(url, **settings))


async def assert_first_line(url: str, level: str, text: str, fix: str = "", **settings: Any) -> None:
    findings = await diagnose(url, **settings)
    first, second = as_text(findings).splitlines()[:2]
    assert first.startswith(f"{level:8} ")
    assert text in first
    assert fix in second
    assert exit_code(findings) == {"ok": 0, "warning": 1, "problem": 3}[level]


async def test_a_healthy_server(server: RedisServer, client: Any) -> None:
    """All is well, and nothing stays behind: whoever counts afterwards counts none of ours."""
    findings = await diagnose(server.url)
    assert as_text(findings).startswith("ok       a session was locked, stored and removed; storing took ")
    assert {finding.topic for finding in findings} == {"session", "memory", "latency", "clock", "records", "rights"}
    assert exit_code(findings) == 0
    assert client.keys() == []


# -- memory, disk, replicas -------------------------------------------------------------------------------------------


async def test_a_full_server(server: RedisServer, client: Any) -> None:
    """It refuses changes."""
    client.config_set("maxmemory", 1)
    await assert_first_line(server.url, "problem", "it is full and refuses changes", "redis-cli CONFIG SET maxmemory")


async def test_a_server_that_will_soon_be_full(server: RedisServer, client: Any) -> None:
    """There is time to do something about it."""
    client.setrange("ballast", 1 << 24, b"x")  # not sent: a buffer for it would soon be given back
    client.config_set("maxmemory", int(client.info("memory")["used_memory"] * 1.08))
    await assert_first_line(server.url, "warning", "it will soon be full", "redis-cli CONFIG SET maxmemory")
    client.config_set("maxmemory", 1 << 30)
    assert "of 1024.0 MiB in use (maxmemory)" in as_text(await diagnose(server.url))


async def test_a_server_that_throws_away_locks(server: RedisServer, client: Any) -> None:
    """An eviction policy that may take sessions and locks."""
    client.config_set("maxmemory", 1 << 30)
    client.config_set("maxmemory-policy", "allkeys-lru")
    text = "it throws away sessions and locks (maxmemory-policy is allkeys-lru; "
    await assert_first_line(server.url, "warning", text, "redis-cli CONFIG SET maxmemory-policy noeviction")


async def test_a_server_without_disk(server: RedisServer) -> None:
    """It could not save, and so refuses changes."""
    with redis_server(server.binary) as broken, broken.client() as client:
        for _ in broken_disk.__wrapped__(client):  # type: ignore[attr-defined]
            await assert_first_line(broken.url, "problem", "it could not save its data to disk", "redis-cli BGSAVE")
            break


async def test_a_server_without_its_replicas(server: RedisServer, client: Any) -> None:
    """It was told to take changes only if a replica is there."""
    client.config_set("min-replicas-to-write", 1)
    await assert_first_line(server.url, "problem", "too few replicas are connected", "redis-cli INFO replication")


async def test_a_replica(server: RedisServer, client: Any) -> None:
    """It names its primary, if it may be asked."""
    port = free_port()
    client.replicaof("127.0.0.1", port)
    text = f"it is a replica of 127.0.0.1:{port}, and cannot be written to"
    await assert_first_line(server.url, "problem", text, f"write the primary, 127.0.0.1:{port}, into REDIS_URL")
    client.execute_command("ACL SETUSER app on >secret", *ACL.split(), "-info")
    url = f"redis://app:secret@127.0.0.1:{server.port}"
    await assert_first_line(url, "problem", "it is a replica of another server", "write the primary into REDIS_URL")


async def test_replicas(server: RedisServer, client: Any) -> None:
    """As long as they keep up all is well; one that is behind is named."""
    with redis_server(server.binary) as replica, replica.client() as its_client:
        client.config_set("repl-diskless-sync-delay", 0)
        its_client.replicaof("127.0.0.1", server.port)
        with trio.fail_after(LIMIT):
            while client.info("replication").get("slave0", {}).get("state") != "online":
                await trio.sleep(0.05)
        assert ": its replica keeps up" in as_text(await diagnose(server.url))
        replica.freeze()
        try:
            for _ in range(8):
                client.set("ballast", bytes(1 << 20))
            text = f"its replica 127.0.0.1:{replica.port} is behind: "
            fix = f"redis-cli -h 127.0.0.1 -p {replica.port} INFO replication"
            await assert_first_line(server.url, "warning", text, fix)
        finally:
            replica.thaw()


def test_a_replica_that_is_still_copying() -> None:
    """Its state is told, too."""
    facts = {"role": "master", "connected_slaves": "1", "slave0": "ip=r1,port=1,state=wait_bgsave,offset=0,lag=9"}
    (finding,) = _health.look_at_replicas("primary", facts, "REDIS_URL", wanted=False, needed=0)
    assert "r1:1 is behind: 0 bytes, last heard of 9 s ago, it is in state wait_bgsave; should" in finding.text


async def test_fewer_replicas_than_have_to_confirm(server: RedisServer, client: Any) -> None:
    """Each change would be stored, and end in an error."""
    text = "durability is replicas:1, and 0 are connected: changes are stored, and answered with an error"
    await assert_first_line(server.url, "problem", text, "start the replicas", durability="replicas:1")
    facts = {"role": "master", "connected_slaves": "1", "slave0": "ip=r1,port=1,state=online,offset=0,lag=0"}
    first, _ = _health.look_at_replicas("primary", facts, "REDIS_URL", wanted=False, needed=2)
    assert "replicas:2, and 1 is connected" in first.text
    assert "SESSION_DURABILITY=replicas:1" in first.fix


async def test_replicas_that_confirm(server: RedisServer, client: Any) -> None:
    """A primary that takes changes which nobody will confirm is told not to."""
    with redis_server(server.binary) as replica, replica.client() as its_client:
        client.config_set("repl-diskless-sync-delay", 0)
        its_client.replicaof("127.0.0.1", server.port)
        with trio.fail_after(LIMIT):
            while client.info("replication").get("slave0", {}).get("state") != "online":
                await trio.sleep(0.05)
        findings = await diagnose(server.url, durability="replicas:1")
        (found,) = [finding for finding in findings if finding.topic == "durability"]
        assert found.level == "warning"
        assert "when fewer than 1 replicas are connected it goes on taking changes that none of them" in found.text
        assert found.fix.startswith("redis-cli CONFIG SET min-replicas-to-write 1")
        client.config_set("min-replicas-to-write", 1)
        findings = await diagnose(server.url, durability="replicas:1")
        assert "durability" not in {finding.topic for finding in findings}
        assert "a session was locked, stored and removed" in as_text(findings)


async def test_rights_for_durability(server: RedisServer, client: Any) -> None:
    """They are needed only with it."""
    client.execute_command("ACL SETUSER app on >secret", *ACL.split(), "+scan", "-info")
    url = f"redis://app:secret@127.0.0.1:{server.port}"
    await assert_first_line(url, "warning", "the user app may not run info: nobody can see", "'+info'")
    text, fix = "the user app may not run wait, info", "redis-cli ACL SETUSER app +wait +info"
    await assert_first_line(url, "problem", text, fix, durability="replicas:1")


# -- distance and time ------------------------------------------------------------------------------------------------


async def test_a_server_far_away(server: RedisServer) -> None:
    """A change waits for two round trips."""
    async with open_proxy(server.port) as proxy:
        proxy.delay = 0.01
        await assert_first_line(proxy.url, "warning", "each change of a session waits for two", "into one data centre")


@pytest.mark.parametrize(("ahead", "word"), [(-3600.0, "ahead of"), (3600.0, "behind")])
async def test_clocks_that_differ(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch, ahead: float, word: str
) -> None:
    """Whichever of the two is wrong."""
    monkeypatch.setattr(_health, "time", SimpleNamespace(time=lambda: time.time() + ahead))
    await assert_first_line(server.url, "warning", f"s {word} this machine's", "timedatectl set-ntp true")


# -- rights -----------------------------------------------------------------------------------------------------------


async def test_the_least_rights_are_enough(server: RedisServer, client: Any) -> None:
    """With the rule of the how-to all is well; but for the sample of stored sessions, which takes one more."""
    client.execute_command("ACL SETUSER app on >secret", *ACL.split())
    url = f"redis://app:secret@127.0.0.1:{server.port}"
    findings = await diagnose(url)
    assert as_text(findings).startswith("skipped  ")
    assert "whether stored sessions can be read was not tried: NOPERM" in findings[0].text
    assert findings[0].fix == "redis-cli ACL SETUSER app +scan"
    assert [finding.level for finding in findings[1:]] == ["ok"] * 5
    client.execute_command("ACL SETUSER app +scan")
    assert {finding.level for finding in await diagnose(url)} == {"ok"}


async def test_each_right_that_is_missing_is_named(server: RedisServer, client: Any) -> None:
    """What cannot be done without is a problem, the rest a warning; what it says to type cures it."""
    url = f"redis://app:secret@127.0.0.1:{server.port}"
    for right in (*VITAL, *NICE_TO_HAVE):
        others = [word for word in ACL.split() if word != f"+{right}"]
        client.execute_command("ACL SETUSER app reset on >secret", *others, "+scan")
        findings = await diagnose(url)
        vital = right in VITAL
        assert findings[0].level == ("problem" if vital else "warning"), right
        assert f"the user app may not run {right.replace('|', ' ')}" in findings[0].text
        client.execute_command(findings[0].fix.removeprefix("redis-cli ").replace("'", ""))
        assert exit_code(await diagnose(url)) == 0


async def test_no_database_at_all(server: RedisServer, client: Any) -> None:
    """Without the right to choose one, there is none."""
    client.execute_command("ACL SETUSER app on >secret", *ACL.replace("+select", "").split())
    text, fix = "database 0 cannot be used: NOPERM", "redis-cli ACL SETUSER app +select"
    await assert_first_line(f"redis://app:secret@127.0.0.1:{server.port}", "problem", text, fix)


async def test_keys_and_channels_that_are_missing(server: RedisServer, client: Any) -> None:
    """They are called by the prefix, which is the name of the cookie; what it says to type cures both."""
    client.execute_command("ACL SETUSER app on >secret +@all ~other:* resetchannels &other:*")
    url = f"redis://app:secret@127.0.0.1:{server.port}"
    findings = await diagnose(url, app_name="My shop")
    assert findings[0].text.endswith("the user app may not use keys that begin with my_shop_session:")
    assert findings[0].level == "problem"
    assert findings[1].level == "warning"
    assert "channels that begin with my_shop_session:" in findings[1].text
    for finding in findings[:2]:
        client.execute_command(finding.fix.removeprefix("redis-cli ").replace("'", ""))
    assert exit_code(await diagnose(url, app_name="My shop")) == 0


async def test_the_doctors_rights_are_those_of_the_docs() -> None:
    """One list, in two places."""
    named = {word[1:] for word in ACL.split() if word[0] == "+"}
    assert {*VITAL, *NICE_TO_HAVE, "select"} == named
    assert not set(VITAL) & set(NICE_TO_HAVE)


async def test_a_session_that_cannot_be_stored(server: RedisServer, client: Any) -> None:
    """Should every single thing be allowed and the whole not work, it is found out by trying."""
    client.execute_command("ACL SETUSER app on >secret +@all &* ~trio_session:{do}:*")
    text = "a session cannot be stored: "
    await assert_first_line(f"redis://app:secret@127.0.0.1:{server.port}", "problem", text, "see the server's log")


# -- encryption -------------------------------------------------------------------------------------------------------


async def store(url: str, codec: EncryptedCodec | None, *, count: int = 1) -> None:
    async with open_session_manager(config(url, codec=codec)) as manager:
        for _ in range(count):
            await manager.session().put("name", "Ada")


async def test_keys_that_are_wrong(server: RedisServer, client: Any) -> None:
    """Stored sessions cannot be read: with another key, without one, or in plain where that is refused."""
    await store(server.url, EncryptedCodec([OLD]), count=3)
    client.set("trio_session:{ab}:" + "x" * 22, "not a record")
    text = "3 of 3 sessions that were tried cannot be read: the stored session is encrypted"
    for codec in (None, EncryptedCodec([NEW])):
        await assert_first_line(server.url, "problem", text, "give it the keys", codec=codec)
    await assert_first_line(server.url, "warning", text, codec=None, undecodable="discard")
    findings = await diagnose(server.url, codec=EncryptedCodec([NEW, OLD]))
    assert exit_code(findings) == 0
    assert "sessions are encrypted with the key" in as_text(findings)
    assert "can still be read" in as_text(findings)
    assert "sessions that are stored can be read (3 were tried)" in as_text(findings)
    client.flushall()
    await store(server.url, None)
    text = "1 of 1 sessions that were tried cannot be read: the stored session is not encrypted"
    await assert_first_line(server.url, "problem", text, codec=EncryptedCodec([NEW]))


async def test_a_roll_out_that_is_not_finished(server: RedisServer) -> None:
    """As long as plain records are taken, somebody should know."""
    text = "sessions in plain are accepted (plaintext='read')"
    await assert_first_line(server.url, "warning", text, "unset", codec=EncryptedCodec([NEW], plaintext="read"))
    text = "sessions are stored in plain although there are keys (plaintext='write')"
    await assert_first_line(
        server.url, "warning", text, "SESSION_PLAINTEXT=read", codec=EncryptedCodec([NEW], plaintext="write")
    )


async def test_only_a_sample_is_looked_at(server: RedisServer, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server with millions of keys is not gone through."""
    room = "trio_session.cli.doctor._readability"
    monkeypatch.setattr(f"{room}._SAMPLE", 5)
    monkeypatch.setattr(f"{room}._STEP", 2)
    monkeypatch.setattr(f"{room}._STEPS", 10)
    client.mset({f"others:{number}": b"" for number in range(100)})
    assert "no sessions yet" in as_text(await diagnose(server.url))
    await store(server.url, None, count=12)
    client.delete(*client.keys("others:*"))
    assert "can be read (5 were tried)" in as_text(await diagnose(server.url))
    monkeypatch.setattr(f"{room}._MOST_BYTES", 20)
    assert "can be read (2 were tried)" in as_text(await diagnose(server.url))


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the command: its exit code and its output, line by line."""

    def run(*arguments: str) -> tuple[int, list[str]]:
        code = main(["doctor", *arguments])
        return code, capsys.readouterr().out.splitlines()

    return run


def test_in_one_process(lines: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The local driver is right for one worker, and wrong for two."""
    code, (line,) = lines()
    assert (code, line[:37]) == (0, "ok       sessions live in this proces")
    for arguments in (("--workers", "4"), ()):
        code, (first, second) = lines(*arguments)
        assert code == 3
        assert first.startswith("problem  sessions live in one process (driver local), and 4 workers serve")
        assert second == "         > SESSION_DRIVER=redis REDIS_URL=redis://host:6379/0"
        monkeypatch.setenv("WEB_CONCURRENCY", "4")


def test_from_the_environment(running: RedisServer, lines: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It connects as the application does; the log does not say everything a second time."""
    monkeypatch.setenv("SESSION_DRIVER", "redis")
    monkeypatch.setenv("REDIS_URL", running.url)
    code, (first, *_) = lines()
    assert code == 0
    assert first.startswith("ok       a session was locked, stored and removed")
    monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{free_port()}")
    code, output = lines("--json")
    report = json.loads("".join(output))
    assert code == report["exit_code"] == 3
    assert report["level"] == report["findings"][0]["level"] == "problem"
    assert report["findings"][0]["topic"] == "network"


@pytest.mark.parametrize(
    ("variable", "value", "text"),
    [
        ("SESSION_LIFETIME", "long", "SESSION_LIFETIME must be a number of minutes"),
        ("SESSION_KEYS", "hunter2", "SESSION_KEYS must be 32 random bytes in base64"),
        ("WEB_CONCURRENCY", "many", "WEB_CONCURRENCY must be a whole number"),
    ],
)
def test_settings_that_are_wrong(
    lines: Any, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, text: str
) -> None:
    """They are named, and never shown if they may be a secret."""
    monkeypatch.setenv(variable, value)
    code, (first, second) = lines()
    assert code == 2
    assert first.startswith(f"wrong    the settings are wrong: {text}")
    assert "hunter2" not in first + second


def test_from_a_module(lines: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--config` names a SessionConfig in the directory it is called from; what is wrong with it is one line."""
    monkeypatch.chdir(tmp_path)
    Path("doctored.py").write_text(
        "from trio_session import SessionConfig\nclass Settings: sessions = SessionConfig()\nport = 80\n"
    )
    Path("undoctored.py").write_text("from trio_session import SessionConfig\nSessionConfig(lifetime=-1)\n")
    assert lines("--config", "doctored:Settings.sessions")[0] == 0
    for place, text in {
        "doctored:port": "doctored:port is no SessionConfig, but of type int",
        "doctored:none": "doctored:none cannot be imported: AttributeError: module 'doctored'",
        "nowhere:none": "nowhere:none cannot be imported: ModuleNotFoundError: No module named 'nowhere'",
        "undoctored:none": "lifetime must be more than 0 seconds",
    }.items():
        code, (first, _) = lines("--config", place)
        assert code == 2
        assert first.startswith(f"wrong    the settings are wrong: {text}")


def test_control_c(lines: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends as commands do that are interrupted, without a traceback."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(trio, "run", interrupt)
    assert lines() == (130, [])


def test_as_a_process(tmp_path: Path) -> None:
    """The command that is installed; what it prints is not mixed with anything else."""
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-m", "trio_session.cli", "doctor"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    assert ran.stderr == ""
    assert ran.stdout.startswith("ok       sessions live in this process")
