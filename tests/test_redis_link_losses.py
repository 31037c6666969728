"""The shared connection to a server when it is lost: what is sent again, and who is told, when."""

from __future__ import annotations

import logging
from itertools import pairwise
from math import inf

import pytest
import redis.exceptions
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from trio_session import StorageUnavailableError
from trio_session._tasks import open_service_nursery
from trio_session.redis import _link
from trio_session.redis._connection import Connection
from trio_session.redis._link import Link
from trio_session.redis._resp import pack
from trio_session.redis._supervisor import PATIENCE, Supervisor

from .test_redis_link import NAME, Bench, Call, Peer, open_bench, payloads, refused

SILENCE = 2.0  # seconds
MOST = 10_000  # commands under way


async def test_what_was_not_answered_is_sent_again(mock_clock: MockClock) -> None:
    """In the old order, but for those whose callers have gone; and after it what had not been sent at all."""
    async with open_bench() as bench:
        answered, first, gone, second = await bench.call("answered", "first", "gone", "second")
        await bench.peer.say(b"+done\r\n")
        gone.scope.cancel()
        bench.peer.heard()
        bench.peer.may_send = trio.Event()
        await bench.peer.hang_up()
        (third,) = await bench.call("third")
        assert bench.peer.heard() == b""
        bench.peer.may_send.set()
        mock_clock.jump(0.2)
        await wait_all_tasks_blocked()
        assert bench.peer.heard() == payloads("first", "second", "third")
        await bench.peer.say(b"+1\r\n+2\r\n+3\r\n")
        commands = [call.command for call in (answered, first, second, third)]
        assert [(command.reply, command.sends) for command in commands if command is not None] == [
            (b"done", 1),
            (b"1", 2),
            (b"2", 2),
            (b"3", 1),
        ]


async def test_half_a_reply_is_forgotten_with_its_connection(mock_clock: MockClock) -> None:
    """What a lost connection had begun to say is not put in front of what the next one says."""
    async with open_bench() as bench:
        (call,) = await bench.call("call")
        await bench.peer.say(b"$5\r\nhal")
        await bench.peer.hang_up()
        mock_clock.jump(0.2)
        await wait_all_tasks_blocked()
        await bench.peer.say(b"$4\r\nmine\r\n")
        assert call.reply == b"mine"


async def test_asking_goes_with_its_command(mock_clock: MockClock) -> None:
    """Nothing comes between the two, the second reply counts, and what is sent again is sent again as a whole."""
    async with open_bench() as bench:
        asking = pack(("ASKING",))
        (first,) = await bench.call("first", asking=True)
        (other,) = await bench.call("other")
        assert bench.peer.heard() == asking + payloads("first") + payloads("other")
        await bench.peer.say(b"+OK\r\n")
        assert first.waits
        await bench.peer.hang_up()
        mock_clock.jump(0.2)
        await wait_all_tasks_blocked()
        assert bench.peer.heard() == asking + payloads("first", "other")
        await bench.peer.say(b"+OK\r\n", b"+1\r\n", b"+2\r\n")
        assert (first.reply, other.reply) == (b"1", b"2")
        (last,) = await bench.call("last", asking=True)
        await bench.peer.say(b"+OK\r\n")
        bench.peer.refusal = refused()
        await bench.peer.hang_up()
        for _ in range(2):
            mock_clock.jump(PATIENCE / 2)
            await wait_all_tasks_blocked()
        assert last.failure == "connection refused"


async def test_a_better_server(mock_clock: MockClock) -> None:
    """Who hears of one goes there at once, whatever the link is doing."""
    async with open_bench() as bench:
        reason = redis.exceptions.ConnectionError("there is a better one")
        (call,) = await bench.call("call")
        bench.link.leave(reason)
        await wait_all_tasks_blocked()
        assert bench.peer.connections == 2  # without a pause
        assert bench.link.is_up
        await bench.peer.say(b"+1\r\n")
        assert call.reply == b"1"
        bench.peer.refusal = refused()
        await bench.peer.hang_up()
        mock_clock.jump(0.2)
        await wait_all_tasks_blocked()
        attempts = bench.peer.connections
        assert not bench.link.is_up
        bench.peer.refusal = None
        bench.link.leave(reason)
        await wait_all_tasks_blocked()
        assert bench.peer.connections == attempts + 1
        assert bench.link.is_up


async def test_a_better_server_in_the_last_moment(mock_clock: MockClock) -> None:
    """A connection that was made while the news came is not used."""
    peer = Peer()
    links: list[Link] = []

    async def connect() -> Connection:
        connection = await peer.connect()
        if peer.connections == 1:
            links[0].leave(redis.exceptions.ConnectionError("there is a better one"))
        return connection

    links.append(Link(NAME, connect))
    async with open_service_nursery() as start:
        start(links[0].run)
        await links[0].opened()
        assert peer.connections == 2


async def test_patience_ends(autojump_clock: MockClock) -> None:
    """Two seconds without a server, and callers are told which one is away and why; after that at once."""
    async with open_bench() as bench:
        (call,) = await bench.call("call")
        bench.peer.refusal = refused()
        lost_at = trio.current_time()
        await bench.peer.hang_up()
        assert (await bench.link.call(payloads("another"))).failure is bench.peer.refusal
        assert trio.current_time() - lost_at == pytest.approx(PATIENCE)
        await wait_all_tasks_blocked()
        assert call.failure == "connection refused"
        assert call.ended_at - lost_at == pytest.approx(PATIENCE)
        now = trio.current_time()
        assert (await bench.link.call(payloads("late"))).failure is bench.peer.refusal
        assert trio.current_time() == now
        assert repr(bench.link) == f"<Link {NAME} down, 0 queued, 0 sent>"
        bench.peer.refusal = None
        await trio.sleep(2)
        (call,) = await bench.call("again")
        await bench.peer.say(b"+fine\r\n")
        assert call.reply == b"fine"


async def test_patience_ends_in_the_middle_of_an_attempt(autojump_clock: MockClock) -> None:
    """A server that neither accepts us nor refuses us keeps nobody waiting for longer; and is not given up."""
    async with open_bench() as bench:
        (call,) = await bench.call("call")
        bench.peer.may_connect = trio.Event()
        lost_at = trio.current_time()
        await bench.peer.hang_up()
        await trio.sleep(2 * PATIENCE)
        assert call.ended_at - lost_at == pytest.approx(PATIENCE)
        assert call.failure == "the server closed the connection"
        bench.peer.may_connect.set()
        await wait_all_tasks_blocked()
        assert bench.link.is_up
        assert bench.peer.connections == 2
        await trio.sleep(2 * PATIENCE)
        (call,) = await bench.call("again")
        await bench.peer.say(b"+fine\r\n")
        assert call.reply == b"fine"


async def test_patience_ends_before_there_ever_was_a_connection(autojump_clock: MockClock) -> None:
    """The same at the start: whoever opens the link is told, in time."""
    peer = Peer()
    peer.may_connect = trio.Event()
    link = Link(NAME, peer.connect)
    async with open_service_nursery() as start:
        start(link.run)
        with pytest.raises(StorageUnavailableError, match="no connection within 2 s"):
            await link.opened()
        assert trio.current_time() - peer.attempts[0] == pytest.approx(PATIENCE)


async def test_a_short_absence_is_not_noticed(autojump_clock: MockClock) -> None:
    """A server that is back within the two seconds costs its callers a moment, and no error."""
    async with open_bench() as bench:
        await bench.peer.hang_up()
        bench.peer.refusal = refused()
        (call,) = await bench.call("call")
        bench.peer.refusal = None
        await trio.sleep(1)
        await bench.peer.say(b"+fine\r\n")
        assert call.reply == b"fine"


async def test_who_insists_waits_on(autojump_clock: MockClock) -> None:
    """A write that may have run is asked about for as long as its caller likes; one that cannot have run is not."""
    async with open_bench() as bench:
        (written,) = await bench.call("written", insists=True)
        bench.peer.refusal = refused()
        await bench.peer.hang_up()
        (unwritten,) = await bench.call("unwritten", insists=True)
        await trio.sleep(60)
        assert unwritten.failure == "connection refused"
        assert written.waits
        bench.peer.refusal = None
        await trio.sleep(2)
        await bench.peer.say(b"+it had run\r\n")
        assert written.reply == b"it had run"
        assert written.command is not None
        assert written.command.sends == 2


async def test_closing_answers_everybody(mock_clock: MockClock) -> None:
    """Nobody waits for a link that is no more: not who was written, insisting or not, nor who waits for room."""
    async with trio.open_nursery() as nursery, open_bench() as bench:
        written = Call(bench.link, nursery, "written")
        insisting = Call(bench.link, nursery, "insisting", insists=True)
        await wait_all_tasks_blocked()
        bench.peer.may_send = trio.Event()
        for _ in range(MOST):
            bench.link.post(payloads("filling"))
        parked = Call(bench.link, nursery, "parked")
        await wait_all_tasks_blocked()
        assert written.waits
        assert insisting.waits
        assert parked.waits
    for call in (written, insisting, parked):
        assert call.failure == "the store is closed"
    assert str((await bench.link.call(payloads("late"))).failure) == "the store is closed"


async def test_messages_nobody_waits_for(mock_clock: MockClock) -> None:
    """`post` sends in order with the calls, and its reply is thrown away; while the server is away it is dropped."""
    async with open_bench() as bench:
        bench.link.post(payloads("posted"))
        (call,) = await bench.call("call")
        assert bench.peer.heard() == payloads("posted", "call")
        await bench.peer.say(b"-ERR nobody cares\r\n", b"+mine\r\n")
        assert call.reply == b"mine"
        bench.peer.refusal = refused()
        await bench.peer.hang_up()
        await give_up(bench, mock_clock)
        bench.link.post(payloads("dropped"))
        bench.peer.refusal = None
        mock_clock.jump(2)
        await wait_all_tasks_blocked()
        (call,) = await bench.call("back")
        assert bench.peer.heard() == payloads("back")


async def give_up(bench: Bench, clock: MockClock) -> None:
    """Let time pass until callers are refused."""
    for _ in range(8):
        clock.jump(PATIENCE / 4)
        await wait_all_tasks_blocked()
    assert (await bench.link.call(payloads("refused"))).failure is bench.peer.refusal


async def test_draining(autojump_clock: MockClock) -> None:
    """`drain` returns when what was sent before has been answered; without a server it does not fail."""
    async with open_bench() as bench:
        drained = trio.Event()

        async def drain() -> None:
            await bench.link.drain()
            drained.set()

        bench.link.post(payloads("posted"))
        bench.nursery.start_soon(drain)
        await wait_all_tasks_blocked()
        await bench.peer.say(b"+1\r\n")
        assert not drained.is_set()
        await bench.peer.say(b"+PONG\r\n")
        assert drained.is_set()
        bench.peer.refusal = refused()
        await bench.peer.hang_up()
        await bench.link.drain()


async def test_a_reason_to_restart(mock_clock: MockClock) -> None:
    """A connection is given up for what it said, unless it is a newer one than that which said it."""
    async with open_bench() as bench:
        reason = redis.exceptions.ReadOnlyError("it is a replica")
        connected_at = trio.current_time()
        bench.link.restart(reason, unless_since=connected_at - 1)
        await wait_all_tasks_blocked()
        assert bench.peer.connections == 1
        mock_clock.jump(1)
        bench.link.restart(reason, unless_since=connected_at + 1)
        bench.link.restart(reason, unless_since=connected_at + 1)  # no harm in saying so twice
        await wait_all_tasks_blocked()
        bench.link.restart(reason, unless_since=connected_at + 1)
        mock_clock.jump(0.2)
        await wait_all_tasks_blocked()
        assert bench.peer.connections == 2
        bench.link.restart(reason, unless_since=connected_at + 1)
        mock_clock.jump(0.2)
        await wait_all_tasks_blocked()
        assert bench.peer.connections == 2


async def test_a_command_that_connections_die_of(autojump_clock: MockClock) -> None:
    """A command after which the server hangs up each time is not sent for ever; those behind it get through."""
    async with open_bench() as bench:
        deadly, harmless = await bench.call("deadly", "harmless", insists=True)
        for _ in range(20):
            if not deadly.waits:
                break
            await bench.peer.hang_up()
            await trio.sleep(2)
        assert deadly.command is not None
        assert deadly.command.sends == 5
        assert deadly.failure == "the server closed the connection"
        assert not harmless.waits


# -- silence ----------------------------------------------------------------------------------------------------------


async def test_a_silent_server_is_taken_for_dead(mock_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """Two seconds without a word while a reply is owed, and the link looks for a better connection."""
    async with open_bench() as bench:
        mock_clock.jump(100)  # nothing was owed, so this is no silence
        (call,) = await bench.call("call")
        mock_clock.jump(SILENCE - 0.1)
        await wait_all_tasks_blocked()
        assert bench.peer.connections == 1
        mock_clock.jump(0.2)
        await wait_all_tasks_blocked()
        assert "the server has not answered for 2 s" in caplog.text
        mock_clock.jump(0.2)
        await wait_all_tasks_blocked()
        assert bench.peer.connections == 2
        assert bench.peer.heard() == payloads("call", "call")
        await bench.peer.say(b"+at last\r\n")
        assert call.reply == b"at last"


async def test_a_slow_server_is_left_alone(mock_clock: MockClock) -> None:
    """As long as it says anything at all, the connection stands, however long the queue."""
    async with open_bench() as bench:
        calls = await bench.call(*"abcdef")
        for number, call in enumerate(calls):
            mock_clock.jump(SILENCE - 0.1)
            await bench.peer.say(b":%d\r\n" % number)
            assert call.reply == number
        (call,) = await bench.call("large")
        for piece in (b"$4\r\n", b"la", b"rge", b"\r\n"[1:]):
            mock_clock.jump(SILENCE - 0.1)
            await bench.peer.say(piece)
        assert bench.peer.connections == 1


async def test_silence_begins_with_the_question(mock_clock: MockClock) -> None:
    """A reply that comes in time ends the watch; the next command has the full time again."""
    async with open_bench() as bench:
        (first,) = await bench.call("first")
        mock_clock.jump(SILENCE - 0.1)
        await bench.peer.say(b"+1\r\n")
        mock_clock.jump(0.05)
        (second,) = await bench.call("second")
        mock_clock.jump(SILENCE - 0.1)
        await wait_all_tasks_blocked()
        assert bench.peer.connections == 1
        await bench.peer.say(b"+2\r\n")
        assert (first.reply, second.reply) == (b"1", b"2")


async def test_an_idle_link_has_no_timer(mock_clock: MockClock) -> None:
    """Without a question there is nothing to wake up for; a question asked and answered leaves no timer for long."""
    async with open_bench() as bench:
        assert seconds_to_next_deadline() == inf
        (call,) = await bench.call("call")
        assert seconds_to_next_deadline() == pytest.approx(SILENCE)
        await bench.peer.say(b"+mine\r\n")
        assert call.reply == b"mine"
        mock_clock.jump(SILENCE)
        await wait_all_tasks_blocked()
        assert seconds_to_next_deadline() == inf
        assert bench.peer.connections == 1


def seconds_to_next_deadline() -> float:
    return trio.lowlevel.current_statistics().seconds_to_next_deadline


# -- back-pressure ----------------------------------------------------------------------------------------------------


async def test_too_many_commands(mock_clock: MockClock) -> None:
    """With 10 000 under way callers wait, first come first served, and each reply lets one of them go on."""
    async with open_bench() as bench:
        for _ in range(MOST - 1):
            bench.link.post(payloads("filling"))
        await bench.call("last that fits")
        waiting = await bench.call("a", "b", "c")
        waiting[1].scope.cancel()
        await wait_all_tasks_blocked()
        assert bench.peer.heard() == payloads(*["filling"] * (MOST - 1), "last that fits")
        await bench.peer.say(b":0\r\n")
        assert bench.peer.heard() == payloads("a")
        await bench.peer.say(b":0\r\n" * 2)
        assert bench.peer.heard() == payloads("c")
        await bench.peer.say(b":0\r\n" * (MOST - 4), b"+last\r\n", b"+a\r\n", b"+c\r\n")
        assert [waiting[0].reply, waiting[2].reply] == [b"a", b"c"]
        assert repr(bench.link) == f"<Link {NAME} up, 0 queued, 0 sent>"


@pytest.mark.parametrize("sent", [True, False])
async def test_room_that_is_made_by_leaving(mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch, sent: bool) -> None:
    """If all those in front have gone and the connection is lost, no reply will ever make room; it is there at once."""
    monkeypatch.setattr(_link, "_MOST_COMMANDS", 500)  # a crowd of 10 000 tasks takes seconds to leave
    async with open_bench() as bench:
        bench.peer.refusal = refused()
        if not sent:
            await bench.peer.hang_up()
        crowd = [Call(bench.link, bench.nursery, "crowd") for _ in range(500)]
        await wait_all_tasks_blocked()
        (parked,) = await bench.call("parked")
        for call in crowd:
            call.scope.cancel()
        await wait_all_tasks_blocked()
        if sent:
            await bench.peer.hang_up()
        bench.peer.refusal = None
        bench.peer.heard()
        mock_clock.jump(0.2)
        await wait_all_tasks_blocked()
        assert bench.peer.heard() == payloads("parked")
        await bench.peer.say(b"+mine\r\n")
        assert parked.reply == b"mine"


# -- how often it is tried --------------------------------------------------------------------------------------------


async def test_attempts_grow_rare_but_not_too_rare(autojump_clock: MockClock) -> None:
    """A server that is away is asked about once a second, so it is neither stormed nor, once it is back, overlooked."""
    async with open_bench() as bench:
        bench.peer.refusal = refused()
        lost_at = trio.current_time()
        bench.peer.attempts = [lost_at]
        await bench.peer.hang_up()
        await trio.sleep(60)
        attempts = bench.peer.attempts
        pauses = [later - earlier for earlier, later in pairwise(attempts)]
        assert pauses[0] <= 0.2 + 0.001
        assert max(pauses) <= 1.8 + 0.001
        assert min(pauses[5:]) >= 0.9 - 0.001
        assert all(sum(begun <= at < begun + 10 for at in attempts) <= 12 for begun in range(2, 50))
        assert len(attempts) < 60


async def test_a_server_that_hangs_up_at_once(autojump_clock: MockClock) -> None:
    """A connection that does not last does not count: the pauses between attempts grow all the same."""
    async with open_bench() as bench:
        for _ in range(20):
            await bench.peer.hang_up()
            before = bench.peer.connections
            while bench.peer.connections == before:
                await trio.sleep(0.1)
            await wait_all_tasks_blocked()
        assert bench.peer.attempts[-1] - bench.peer.attempts[-2] >= 0.8
        await trio.sleep(10)  # this one lasts
        await bench.peer.hang_up()
        await trio.sleep(0.3)
        assert bench.peer.connections == 22


async def test_half_an_hour_without_a_server(autojump_clock: MockClock) -> None:
    """However long it is away, it is still tried."""
    async with open_bench() as bench:
        bench.peer.refusal = refused()
        await bench.peer.hang_up()
        await trio.sleep(1800)
        before = bench.peer.connections
        await trio.sleep(10)
        assert bench.peer.connections > before > 1024


async def test_the_log_is_short(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """One warning when the server is lost, and one when it is back; each new reason meanwhile is for those who ask."""
    caplog.set_level(logging.INFO)
    async with open_bench() as bench:
        await bench.peer.hang_up()
        bench.peer.refusal = refused()
        await trio.sleep(30)
        bench.peer.refusal = OSError("no route to host")
        await trio.sleep(30)
        bench.peer.refusal = None
        await trio.sleep(2)
        lost, refusal, route, back = [record.getMessage() for record in caplog.records]
        assert lost == f"{NAME}: no connection: the server closed the connection"
        assert refusal == f"{NAME}: no connection: connection refused"
        assert route == f"{NAME}: no connection: no route to host"
        assert back.startswith(f"{NAME}: back after 6")
        assert {record.name for record in caplog.records} == {"trio_session.redis"}
        assert [record.levelname for record in caplog.records] == ["WARNING", "INFO", "INFO", "WARNING"]
        await bench.peer.hang_up()
        await trio.sleep(2)
        assert len(caplog.records) == 6


async def test_patience_begins_with_the_first_attempt(autojump_clock: MockClock) -> None:
    """And not when it was decided that there will be one: a connection may be needed later."""
    stream, _ = memory_stream_pair()

    async def connect() -> Connection:
        await trio.sleep(0.01)
        return Connection(stream)

    async def serve(_: Connection) -> Exception:
        await trio.sleep_forever()
        raise AssertionError("slept enough")

    supervisor = Supervisor(NAME, connect=connect, serve=serve)
    await trio.sleep(PATIENCE * 2)
    async with open_service_nursery() as start:
        start(supervisor.run)
        await supervisor.opened()
