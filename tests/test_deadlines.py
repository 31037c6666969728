"""The alarm behind all deadlines of a manager: on time whatever was moved, and silent with nothing to wait for."""

from __future__ import annotations

from math import inf

import trio
import trio.lowlevel
import trio.testing
from trio.testing import MockClock

from trio_session._deadlines import Alarm, Span


async def lasts(alarm: Alarm, due: float, *, moved_to: float | None = None) -> float:
    """How long a body lasts in a span that is due then, seen from now."""
    start = trio.current_time()
    with Span(alarm, start + due) as span:
        if moved_to is not None:
            span.move(start + moved_to)
        await trio.sleep(100)
    return trio.current_time() - start


async def test_each_span_ends_when_it_is_due(autojump_clock: MockClock) -> None:
    """Several at a time, in whatever order they were begun, also if the earliest is left before it is due."""
    alarm, lasted = Alarm(), dict[float, float]()

    async def last(due: float) -> None:
        lasted[due] = await lasts(alarm, due)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(alarm.run)
        async with trio.open_nursery() as spans:
            for due in (3.0, 1.0, 2.0, 200.0):
                spans.start_soon(last, due)
            with Span(alarm, trio.current_time() + 0.5):
                pass
        nursery.cancel_scope.cancel()
    assert lasted == {1.0: 1.0, 2.0: 2.0, 3.0: 3.0, 200.0: 100.0}


async def test_a_deadline_moves_both_ways(autojump_clock: MockClock) -> None:
    """Earlier than the alarm would ring, and later than it was to ring."""
    alarm = Alarm()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(alarm.run)
        assert await lasts(alarm, 10.0, moved_to=2.0) == 2.0
        assert await lasts(alarm, 2.0, moved_to=10.0) == 10.0
        assert await lasts(alarm, inf, moved_to=3.0) == 3.0
        assert await lasts(alarm, 3.0, moved_to=inf) == 100.0
        nursery.cancel_scope.cancel()


async def test_an_idle_alarm_has_no_timer(mock_clock: MockClock) -> None:
    """Neither before the first span, nor after the last, nor when the last was cancelled by it."""
    alarm = Alarm()

    async def timer() -> float:
        await trio.testing.wait_all_tasks_blocked()
        return trio.lowlevel.current_statistics().seconds_to_next_deadline

    async with trio.open_nursery() as nursery:
        nursery.start_soon(alarm.run)
        assert await timer() == inf
        with Span(alarm, trio.current_time() + 5):
            assert await timer() == 5
        assert await timer() == inf
        with Span(alarm, trio.current_time() + 5) as span:
            mock_clock.jump(5)
            assert await timer() == inf
        assert span.scope.cancel_called
        nursery.cancel_scope.cancel()
