"""Who waits for a lock, and which messages end the wait."""

from __future__ import annotations

from math import inf

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_session.redis._waiters import Waiters


class Bench:
    """Waiters, and what happened to them."""

    def __init__(self) -> None:
        self.unclaimed: list[tuple[str, str]] = []
        self.called: list[str] = []
        self.waiters = Waiters(lambda record, who: self.unclaimed.append((record, who)))

    async def wait(self, who: str, seconds: float = inf) -> None:
        await self.waiters.wait(who, seconds)
        self.called.append(who)


async def test_an_offer_wakes_whom_it_names(mock_clock: MockClock) -> None:
    """Others wait on."""
    bench = Bench()
    async with trio.open_nursery() as nursery:
        for who in ("one", "two"):
            bench.waiters.add(who)
            nursery.start_soon(bench.wait, who)
        await wait_all_tasks_blocked()
        assert len(bench.waiters) == 2
        bench.waiters.on_offer(b"prefix:{ab}record two")
        await wait_all_tasks_blocked()
        assert bench.called == ["two"]
        bench.waiters.on_offer(b"prefix:{ab}record one")
        await wait_all_tasks_blocked()
        assert bench.called == ["two", "one"]
    assert bench.unclaimed == []


async def test_an_offer_that_comes_before_the_wait(mock_clock: MockClock) -> None:
    """It may overtake the answer that sends us waiting; it is remembered, once."""
    bench = Bench()
    bench.waiters.add("one")
    bench.waiters.on_offer(b"record one")
    bench.waiters.on_offer(b"record one")
    await bench.wait("one")
    with trio.move_on_after(0):
        await bench.wait("one")
    assert bench.called == ["one"]


async def test_the_end_of_a_wait_is_no_call(autojump_clock: MockClock) -> None:
    """Without an offer the wait ends in its own time, and the next one waits as long again."""
    bench = Bench()
    bench.waiters.add("one")
    for _ in range(2):
        before = trio.current_time()
        await bench.wait("one", 5)
        assert trio.current_time() - before == 5
    bench.waiters.on_offer(b"record one")
    before = trio.current_time()
    await bench.wait("one", 5)
    assert trio.current_time() == before


async def test_a_call_to_all(mock_clock: MockClock) -> None:
    """When messages may have been lost all ask again, also those who are about to wait."""
    bench = Bench()
    async with trio.open_nursery() as nursery:
        for who in ("asks", "waits"):
            bench.waiters.add(who)
        nursery.start_soon(bench.wait, "waits")
        await wait_all_tasks_blocked()
        bench.waiters.call_all()
        await wait_all_tasks_blocked()
        assert bench.called == ["waits"]
        await bench.wait("asks")
    assert bench.called == ["waits", "asks"]


async def test_an_offer_to_one_who_has_gone(mock_clock: MockClock) -> None:
    """It is passed on; and so is what makes no sense, as it would be to nobody."""
    bench = Bench()
    bench.waiters.add("one")
    bench.waiters.remove("one")
    bench.waiters.remove("one")  # no harm in that
    bench.waiters.on_offer(b"prefix:{ab}record one")
    bench.waiters.on_offer(b"\xff")
    assert bench.unclaimed == [("prefix:{ab}record", "one"), ("�", "")]
    assert len(bench.waiters) == 0


async def test_one_who_is_cancelled_can_be_removed(mock_clock: MockClock) -> None:
    """A wait that is cancelled leaves nothing but the name, which its owner removes."""
    bench = Bench()
    bench.waiters.add("one")
    with trio.CancelScope() as scope:
        scope.cancel()
        await bench.wait("one")
    bench.waiters.on_offer(b"record one")
    assert bench.unclaimed == []
    bench.waiters.remove("one")
    assert len(bench.waiters) == 0
