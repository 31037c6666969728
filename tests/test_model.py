"""Two Sessions of one id against a plain model: interleaved, nested, cancelled, and with jumps of the clock.

A hypothesis state machine is synchronous, so trio runs as a guest of it: each rule hands over one step, and the run is
pumped until all tasks are blocked. Nothing here depends on real time.
"""

from __future__ import annotations

import copy
import queue
from collections.abc import Awaitable, Callable
from typing import Any

import outcome
import trio
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_session import LockLostError, Session, SessionConfig, open_session_manager

Step = Callable[[], Awaitable[Any]]
ACTORS = st.sampled_from(["A", "B"])

LEASE = 5.0
# Well within a lease between two renewals, and well past any hold limit.
SHORT_JUMPS = st.sampled_from([0.125, 0.5, 1.0])
LONG_JUMP = 60.0
HOLD_LIMIT = 10.0


class Guest:
    """A trio run on a mock clock, moved on by synchronous code."""

    def __init__(self) -> None:
        self.clock = MockClock()
        self._todo: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._outcome: outcome.Outcome[None] | None = None
        self._ready = False
        self._steps: trio.MemorySendChannel[Step]
        trio.lowlevel.start_guest_run(
            self._main,
            run_sync_soon_threadsafe=self._todo.put,
            done_callback=self._finish,
            clock=self.clock,
            host_uses_signal_set_wakeup_fd=True,
            restrict_keyboard_interrupt_to_checkpoints=True,
        )
        self._pump(lambda: self._ready)

    def _finish(self, result: outcome.Outcome[None]) -> None:
        self._outcome = result

    def _pump(self, until: Callable[[], bool]) -> None:
        while not until():
            if self._outcome is not None:
                self._outcome.unwrap()
                raise AssertionError("the run is over")
            self._todo.get(timeout=10)()

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._steps, steps = trio.open_memory_channel[Step](1)
        self._ready = True
        async for step in steps:
            self._result = await outcome.acapture(step)
            await wait_all_tasks_blocked()
            self._ready = True

    def do(self, step: Step) -> Any:
        """Run one step to its end, and then whatever it has set off."""
        self._ready = False
        self._token.run_sync_soon(self._steps.send_nowait, step)
        self._pump(lambda: self._ready)
        return self._result.unwrap()

    def close(self) -> None:
        self._token.run_sync_soon(self._steps.close)
        while self._outcome is None:
            self._todo.get(timeout=10)()
        self._outcome.unwrap()


class Actor:
    """A task that does with its Session what it is told."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.scope = trio.CancelScope()
        self.busy = False
        self.result: outcome.Outcome[Any] = outcome.Value(None)
        self.tell, self._orders = trio.open_memory_channel[Step](1)

    async def run(self) -> None:
        async for order in self._orders:
            self.busy = True
            self.scope = trio.CancelScope()
            self.result = outcome.Value("cancelled")
            with self.scope:
                try:
                    self.result = outcome.Value(await order())
                except LockLostError as error:
                    self.result = outcome.Error(error)
            self.busy = False


class Hold:
    """The model's idea of a lock: the working copy, with the savepoints below it."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.levels = [copy.deepcopy(data)]
        self.data = self.levels[0]
        self.lost = False
        self.age = 0.0

    def begin(self) -> None:
        self.levels.append(copy.deepcopy(self.data))

    def end(self, *, keep: bool) -> None:
        savepoint = self.levels.pop()
        if not keep:
            self.data = savepoint


class TwoSessions(RuleBasedStateMachine):
    """The rules; each of them does a thing to the sessions and to the model, and compares."""

    def __init__(self) -> None:
        super().__init__()
        self.guest = Guest()
        self.guest.do(self._open)
        self.committed: dict[str, Any] = {"n": 0}
        self.holds: dict[str, Hold | None] = {"A": None, "B": None}
        self.waiting: list[str] = []

    async def _open(self) -> None:
        self.nursery_ended = trio.Event()
        self.end = trio.Event()
        started = trio.Event()
        trio.lowlevel.spawn_system_task(self._live, started)
        await started.wait()

    async def _live(self, started: trio.Event) -> None:
        config = SessionConfig(lifetime=1e9, lock_lease=LEASE, lock_timeout=1e6, lock_hold_limit=HOLD_LIMIT)
        async with open_session_manager(config) as self.manager:
            first = self.manager.session()
            await first.put("n", 0)
            self.id = first.id
            self.actors = {name: Actor(self.manager.session(self.id)) for name in ("A", "B")}
            async with trio.open_nursery() as nursery:
                for actor in self.actors.values():
                    nursery.start_soon(actor.run)
                started.set()
                await self.end.wait()
                nursery.cancel_scope.cancel()
        self.nursery_ended.set()

    async def _close(self) -> None:
        self.end.set()
        await self.nursery_ended.wait()

    def teardown(self) -> None:
        self.guest.do(self._close)
        self.guest.close()

    def told(self, name: str, order: Callable[[Session], Awaitable[Any]]) -> Actor:
        """Tell an actor what to do; afterwards it has done it, or waits."""
        actor = self.actors[name]

        async def tell() -> None:
            actor.tell.send_nowait(lambda: order(actor.session))

        self.guest.do(tell)
        return actor

    def idle(self, name: str) -> bool:
        return name not in self.waiting

    def holder(self) -> str | None:
        """Whoever keeps others waiting."""
        return next((name for name, hold in self.holds.items() if hold is not None and not hold.lost), None)

    def passed_on(self) -> None:
        """The lock has come free in the model: the first who waits has it now."""
        if self.waiting:
            name = self.waiting.pop(0)
            self.holds[name] = Hold(self.committed)
            assert not self.actors[name].busy
            self.actors[name].result.unwrap()

    def ended(self, name: str, *, keep: bool) -> None:
        """A level has ended in the model."""
        hold = self.holds[name]
        assert hold is not None
        if len(hold.levels) > 1:
            hold.end(keep=keep)
            return
        self.holds[name] = None
        if hold.lost:
            return
        if keep:
            self.committed = hold.data
        self.passed_on()

    # -- rules -------------------------------------------------------------------------------------------------------

    @rule(name=ACTORS)
    def lock(self, name: str) -> None:
        if not self.idle(name):
            return
        hold = self.holds[name]
        actor = self.told(name, lambda session: session.lock())
        if hold is not None and hold.lost:
            assert isinstance(actor.result, outcome.Error)
        elif hold is not None:
            hold.begin()
        elif self.holder() is None:
            self.holds[name] = Hold(self.committed)
        else:
            assert actor.busy
            self.waiting.append(name)

    @rule(name=ACTORS, key=st.sampled_from("nm"), value=st.integers(0, 3))
    def change(self, name: str, key: str, value: int) -> None:
        hold = self.holds[name]
        if hold is None:
            return

        async def order(session: Session) -> None:
            session[key] = value
            session["log"] = [*session.get("log", []), value][-3:]

        self.told(name, order).result.unwrap()
        hold.data[key] = value
        hold.data["log"] = [*hold.data.get("log", []), value][-3:]

    @rule(name=ACTORS, cancelled=st.booleans())
    def commit(self, name: str, cancelled: bool) -> None:
        hold = self.holds[name]
        if hold is None:
            return

        async def order(session: Session) -> None:
            if cancelled:
                self.actors[name].scope.cancel()
            await session.commit()

        actor = self.told(name, order)
        lost = hold.lost and len(hold.levels) == 1
        if cancelled:
            assert actor.result.unwrap() == "cancelled"
        elif lost:
            assert isinstance(actor.result, outcome.Error)
        else:
            actor.result.unwrap()
        self.ended(name, keep=not cancelled)

    @rule(name=ACTORS, every=st.booleans())
    def roll_back(self, name: str, every: bool) -> None:
        hold = self.holds[name]
        if hold is None:
            return
        self.told(name, lambda session: session.unlock_all() if every else session.rollback()).result.unwrap()
        while every and len(hold.levels) > 1:
            hold.end(keep=False)
        self.ended(name, keep=False)

    @rule(name=ACTORS, by=st.integers(1, 3), fails=st.booleans())
    def locked_block(self, name: str, by: int, fails: bool) -> None:
        hold = self.holds[name]
        if self.holder() not in (None, name) or not self.idle(name) or (hold is not None and hold.lost):
            return

        async def order(session: Session) -> None:
            try:
                async with session.locked() as data:
                    data["n"] += by
                    await session.increment("n", by)
                    if fails:
                        raise KeyError("mine")
            except KeyError:
                pass

        self.told(name, order).result.unwrap()
        if not fails:
            (self.committed if hold is None else hold.data)["n"] += 2 * by

    @precondition(lambda self: self.waiting)
    @rule()
    def cancel_a_waiter(self) -> None:
        name = self.waiting.pop(0)
        actor = self.actors[name]

        async def cancel() -> None:
            actor.scope.cancel()

        self.guest.do(cancel)
        assert not actor.busy
        assert actor.result.unwrap() == "cancelled"

    @rule(seconds=SHORT_JUMPS)
    def time_passes(self, seconds: float) -> None:
        """The lease is renewed in time: nothing happens, but that a hold comes nearer to its limit."""
        self._jump(seconds)
        for hold in self.holds.values():
            if hold is not None:
                hold.age += seconds
                if hold.age >= HOLD_LIMIT and not hold.lost:
                    self.the_process_is_paused()

    @rule()
    def the_process_is_paused(self) -> None:
        """For longer than any lease: whoever held the lock has lost it."""
        self._jump(LONG_JUMP)
        self.lose()

    def _jump(self, seconds: float) -> None:
        async def jump() -> None:
            self.guest.clock.jump(seconds)

        self.guest.do(jump)

    def lose(self) -> None:
        holder = self.holder()
        if holder is not None:
            hold = self.holds[holder]
            assert hold is not None
            hold.lost = True
            self.passed_on()

    # -- what must always hold ---------------------------------------------------------------------------------------

    @invariant()
    def everybody_sees_what_they_should(self) -> None:
        fresh = self.manager.session(self.id)

        async def read() -> dict[str, Any]:
            return dict(await fresh.read())

        assert self.guest.do(read) == self.committed
        for name in self.actors:
            hold = self.holds[name]
            if self.idle(name):
                seen = self.told(name, self._look).result.unwrap()
                assert seen == (self.committed if hold is None else hold.data)
            assert self.actors[name].session.is_locked is (hold is not None and not hold.lost)
        statistics = self.manager.statistics()
        assert statistics.tasks_waiting == len(self.waiting)
        assert statistics.locks_held == (self.holder() is not None)

    @staticmethod
    async def _look(session: Session) -> dict[str, Any]:
        return dict(await session.read())


TestTwoSessions = TwoSessions.TestCase
TestTwoSessions.settings = settings(max_examples=min(60, settings().max_examples), stateful_step_count=30)
