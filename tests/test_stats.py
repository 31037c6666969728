"""`trio-session stats` counts what is on a real server, whatever else is there, and never stops it."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import trio

from trio_session import EncryptedCodec, RedisConnection, SessionConfig, open_session_manager
from trio_session.cli import _survey, main
from trio_session.cli._survey import Survey

from .redis_servers import RedisServer, free_port
from .test_redis_trouble import ACL

KEY = EncryptedCodec.new_key()
(FINGERPRINT,) = EncryptedCodec([KEY]).fingerprints


@pytest.fixture
def server(running: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisServer]:
    """An empty one, which the environment names."""
    monkeypatch.setenv("SESSION_DRIVER", "redis")
    monkeypatch.setenv("REDIS_URL", running.url)
    with running.client() as client:
        client.flushall()
        yield running
        client.execute_command("ACL DELUSER app")


@pytest.fixture
def count(capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the command and gives what it counts."""

    def run(*arguments: str) -> dict[str, Any]:
        assert main(["stats", "--json", *arguments]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return run


async def store(url: str, *, count: int, codec: EncryptedCodec | None = None, clear: int = 0) -> None:
    config = SessionConfig(driver="redis", redis={"default": RedisConnection(url=url)}, codec=codec)
    async with open_session_manager(config) as manager, trio.open_nursery() as nursery:
        sessions = [manager.session() for _ in range(count)]
        for session in sessions:
            nursery.start_soon(session.put, "name", "Ada")
    async with open_session_manager(config) as manager:
        for session in sessions[:clear]:
            await manager.session(session.id).clear()


def test_sessions_by_age_size_and_key(server: RedisServer, client: Any, count: Any) -> None:
    """Plain and encrypted ones, old and young; ended ones and other people's keys apart."""
    assert count()["total"]["sessions"] == 0
    trio.run(partial(store, server.url, count=5, clear=1))
    trio.run(partial(store, server.url, count=3, codec=EncryptedCodec([KEY])))
    now = int(time.time() * 1000)
    for number, age in enumerate((120, 7200, 172_800, 1_000_000)):
        created = f"{now - age * 1000:013}".encode()
        client.set(f"trio_session:{{ab}}:{number:022}", b"ts1=" + bytes(16) + created + b"\x01\x80")
    client.set("trio_session:{ab}:" + "x" * 22, "not a record")
    client.set("trio_session:{ab}:" + "y" * 22, "")  # as one looks that has ended meanwhile
    client.set("trio_session:notes", "")
    client.set("somebody:{ab}:" + "x" * 22, "")
    total = count()["total"]
    assert total["sessions"] == 11
    assert total["ages"] == {
        "under a minute": 7,
        "under an hour": 1,
        "under a day": 1,
        "under a week": 1,
        "older": 1,
    }
    assert total["keys"] == {"plain": 8, FINGERPRINT: 3}
    assert total["ended"] == 1
    assert total["others"] == 2
    values = [client.get(key) for key in client.keys("trio_session:{??}:" + "?" * 22)]
    sizes = [len(value) for value in values if value[:4] == b"ts1="]
    assert (total["size"], total["largest"]) == (sum(sizes), max(sizes))


def test_locks_and_who_waits(server: RedisServer, client: Any, count: Any) -> None:
    """A held lock, and the queues for it."""
    record = "trio_session:{ab}:" + "x" * 22
    client.set(f"{record}:l", "somebody", px=60_000)
    client.rpush(f"{record}:q", "one", "two", "three")
    client.rpush("trio_session:{cd}:" + "y" * 22 + ":q", "four")
    client.hset(f"{record}:c", "caller", "commit")
    total = count()["total"]
    assert (total["locks"], total["waiting"], total["awaited"], total["others"]) == (1, 4, 2, 0)


def test_another_prefix(server: RedisServer, count: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts the sessions of the program that is configured, even if its name has what SCAN takes for a pattern."""
    trio.run(partial(store, server.url, count=2))
    monkeypatch.setenv("SESSION_COOKIE_NAME", "trio*")
    assert count()["total"]["sessions"] == 0


def test_for_people(server: RedisServer, client: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each thing, and no bar where nobody watches."""
    client.set("trio_session:notes", "")
    trio.run(partial(store, server.url, count=2, codec=EncryptedCodec([KEY])))
    assert main(["stats"]) == 0
    out, err = capsys.readouterr()
    size = client.strlen(client.keys("trio_session:{*")[0])
    assert out.splitlines() == [
        server.url,
        f"  sessions  2, {2 * size} bytes, {size} each, the largest {size}",
        "  by age    under a minute 2",
        f"  by key    {FINGERPRINT} 2",
        "  ended     0 in the last minute",
        "  locks     0 held; 0 tasks wait, for those of 0 sessions",
        "  others    1 keys that are none of ours, and begin like ours",
    ]
    assert err == ""
    client.flushall()
    assert main(["stats"]) == 0
    assert "  by age    none" in capsys.readouterr().out


def test_the_bar(server: RedisServer, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal it shows how far it has come, and disappears when it is done."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr(_survey, "_STEP", 10)
    client.mset({f"trio_session:{number}": b"" for number in range(100)})
    assert main(["stats"]) == 0
    bars = [line for line in terminal.getvalue().split("\r") if line.startswith("[")]
    shown = [int(line.partition("]")[2].partition("%")[0]) for line in bars]
    assert shown == sorted(shown)
    assert len(shown) > 3
    assert all(0 < part <= 99 for part in shown)
    assert terminal.getvalue().rpartition("\r")[0].endswith(" ")


def test_never_keys(server: RedisServer, client: Any, count: Any) -> None:
    """KEYS would stop the server for all others."""
    client.config_resetstat()
    client.mset({f"trio_session:{number}": b"" for number in range(5000)})
    assert count()["total"]["others"] == 5000
    used = client.info("commandstats")
    assert used["cmdstat_scan"]["calls"] >= 5
    assert "cmdstat_keys" not in used


def test_servers_together() -> None:
    """What several servers have is added up; the largest is the largest of all."""
    one, other = Survey("one", sessions=1, size=10, largest=10), Survey("other", sessions=2, size=30, largest=20)
    one.ages["older"] = other.ages["older"] = 1
    total = Survey.sum([one, other])
    assert (total.sessions, total.size, total.largest, total.ages["older"]) == (3, 40, 20, 2)


# -- what goes wrong --------------------------------------------------------------------------------------------------


def test_rights(
    server: RedisServer, client: Any, capsys: pytest.CaptureFixture[str], count: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It needs some that the application does not, and names them; with them it works."""
    client.execute_command("ACL SETUSER app on >secret", *ACL.split())
    monkeypatch.setenv("REDIS_URL", f"redis://app:secret@127.0.0.1:{server.port}")
    trio.run(partial(store, server.url, count=1))
    for granted in ("", "+scan"):
        client.execute_command("ACL SETUSER app", *granted.split())
        assert main(["stats"]) == 3
        said = capsys.readouterr().err
        assert said.startswith("trio-session: the server cannot be asked: NOPERM")
        assert said.endswith("; the user needs +scan +strlen +getrange +llen +time\n")
    client.execute_command("ACL SETUSER app +strlen")
    assert count()["total"]["sessions"] == 1


def test_a_server_that_is_away(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, and who knows more."""
    monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{free_port()}")
    assert main(["stats"]) == 3
    assert capsys.readouterr().err.endswith("; trio-session doctor says more\n")


def test_settings(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong ones are named; and sessions in processes cannot be counted from outside."""
    assert main(["stats"]) == 2
    assert "driver local" in capsys.readouterr().err
    monkeypatch.setenv("SESSION_LIFETIME", "long")
    assert main(["stats"]) == 2
    assert "SESSION_LIFETIME must be" in capsys.readouterr().err


def test_control_c(server: RedisServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It ends as commands do that are interrupted, without a traceback."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(trio, "run", interrupt)
    assert main(["stats"]) == 130
    assert capsys.readouterr() == ("", "")
