"""The one keeper task that renews every held lease, and what a lease knows about its own end.

A body under a lock runs in a span that is due when the lease ends. The keeper moves that on as it renews. While nothing
is held nothing is due, so an idle manager never makes a test clock jump.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from math import inf

import trio

from ._deadlines import Alarm, Span, Timer
from ._errors import LockLostError, LossReason, StorageUnavailableError
from ._instruments import LockWatch
from .abc import SessionStore

__all__ = ["Lease", "LeaseKeeper", "Terms"]

logger = logging.getLogger("trio_session.leases")

# The body of a lock ends this long before its lease does, so that it stops before another can start: clocks of two
# machines drift, and a cancelled body needs a moment. A twentieth of the lease, but not less than 200 ms.
_MARGIN_SHARE = 0.05
_MARGIN_LEAST = 0.2  # seconds
# Renewals come three times per lease, so that one may fail (Redisson's watchdog does the same).
_RENEWALS_PER_LEASE = 3


class Terms:
    """What all leases of one manager have in common.

    Args:
        duration: seconds a lease lasts unless renewed.
        hold_limit: it is not renewed once held for this long.
        on_lost: called once for each, when it is first known that the lock is lost.
    """

    __slots__ = ("duration", "hold_limit", "margin", "on_lost")

    def __init__(self, *, duration: float, hold_limit: float, on_lost: Callable[[LossReason], None]) -> None:
        self.duration = duration
        self.hold_limit = hold_limit
        self.margin = max(_MARGIN_SHARE * duration, min(_MARGIN_LEAST, duration / 4))
        self.on_lost = on_lost


class Lease:
    """A lock as its holder sees it.

    Args:
        granted_at: trio time at or before which the lease began.
        watch: tells instruments of it, if there are any.

    Attributes:
        span: cancelled if the lease is lost, and due at our deadline; None if there is no body to cancel.
    """

    __slots__ = ("_limit", "_lost", "_terms", "committing", "expires", "key", "span", "token", "watch")

    def __init__(
        self, key: str, token: str, terms: Terms, *, granted_at: float, watch: LockWatch | None = None
    ) -> None:
        self.key = key
        self.token = token
        self.watch = watch
        self.expires = granted_at + terms.duration
        self.committing = False  # the store was asked to end it: only its answer counts now
        self._terms = terms
        self._limit = granted_at + terms.hold_limit
        self._lost: LossReason | None = None
        self.span: Span | None = None

    @property
    def granted_at(self) -> float:
        """When the lease began, or was renewed last."""
        return self.expires - self._terms.duration

    @property
    def lost(self) -> bool:
        """The loss is known; unlike `loss()` this does not look at the clock, so threads may ask."""
        return self._lost is not None

    @property
    def guarded(self) -> bool:
        """A body is cancelled if the lease is lost."""
        return self.span is not None

    @property
    def deadline(self) -> float:
        """When a body has to end, unless the lease is renewed."""
        return min(self._limit, self.expires - self._terms.margin)

    def extend(self, granted_at: float) -> None:
        """The lease was renewed by a request sent at `granted_at`."""
        self.expires = granted_at + self._terms.duration
        if self.span is not None and not self.committing:
            self.span.move(self.deadline)

    def end(self) -> None:
        """Its end was asked for: time no longer counts, only the store's answer does."""
        self.committing = True
        if self.span is not None:
            self.span.due = inf

    def lose(self, reason: LossReason) -> None:
        """The lock is gone: cancel the body."""
        if self._lost is None:
            self._lost = reason
            self._terms.on_lost(reason)
            if self.watch is not None:
                self.watch.lost(reason)
        if self.span is not None:
            self.span.scope.cancel()

    def loss(self, now: float | None = None) -> LossReason | None:
        """Why the lock is lost, if it is; `now` is the present trio time. Once lost it stays lost."""
        if self._lost is None and not self.committing:
            now = trio.current_time() if now is None else now
            if now >= self._limit:
                self.lose("hold_limit")
            elif now >= self.expires - self._terms.margin:
                self.lose("lease_expired")
        return self._lost

    def error(self) -> LockLostError:
        """What to raise for the loss."""
        return LockLostError(self.loss() or "lease_expired")

    def refuse_lost(self) -> None:
        """Raise if the lock is lost."""
        if self.loss() is not None:
            raise self.error()


class LeaseKeeper(Timer):
    """Renews what is held.

    Args:
        lease: seconds a lease lasts.
        alarm: wakes it.
        on_lapse: called with a lost lease once nobody can be kept waiting for it any longer.
    """

    def __init__(self, store: SessionStore, alarm: Alarm, *, lease: float, on_lapse: Callable[[Lease], None]) -> None:
        super().__init__(alarm)  # it is due when something is to be done next
        self._store = store
        self._lease = lease
        self._interval = lease / _RENEWALS_PER_LEASE
        self._rest = lease - self._interval  # is left of a lease when its first renewal is due
        self._on_lapse = on_lapse
        self._held: dict[Lease, None] = {}  # in order of grant
        self._wake = trio.Event()

    def __len__(self) -> int:
        return len(self._held)

    def leases(self) -> list[Lease]:
        return list(self._held)

    def hold(self, lease: Lease) -> None:
        due = lease.expires - self._rest  # which may be over: the answer of the store may have been slow
        if not self._held:
            self.due = due
            self.start()
        elif due < self.due:
            self.move(due)
        self._held[lease] = None

    def drop(self, lease: Lease) -> bool:
        """Stop renewing; False if that was done already."""
        if lease not in self._held:
            return False
        del self._held[lease]
        if not lease.committing:
            lease.end()
        if not self._held:
            self.stop()
        return True

    def expire(self) -> None:
        self._wake.set()

    async def run(self) -> None:
        """Renew until cancelled."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            await self._tend()

    async def _tend(self) -> None:
        started = trio.current_time()
        for lease in self.leases():
            if lease.loss() is not None and lease.expires <= started:
                self._on_lapse(lease)
        alive = [lease for lease in self._held if lease.loss() is None]
        if alive:
            await self._renew(alive, started)
        if self._held:
            self.move(min(self.due, self._next_due(started)))

    def _next_due(self, started: float) -> float:
        """When the next lease is to be looked after, given that all were at `started`."""
        return min((self._due_of(lease, started) for lease in self._held), default=inf)

    def _due_of(self, lease: Lease, started: float) -> float:
        if lease.loss() is not None:
            return lease.expires
        # One that could not be renewed is tried again after an interval; a newer one is due in its own time.
        return max(lease.granted_at, started) + self._interval

    async def _renew(self, leases: list[Lease], started: float) -> None:
        locks = [(lease.key, lease.token) for lease in leases]
        with trio.move_on_after(self._interval):  # the next attempt is due then
            try:
                renewed = await self._store.renew(locks, lease=self._lease)
            except StorageUnavailableError as error:
                logger.warning("%d session locks could not be renewed: %s", len(leases), error)
                return
            except Exception:  # a service that raised would end every session of this process
                logger.exception("%d session locks could not be renewed", len(leases))
                return
            if None in renewed:
                logger.warning("%d session locks could not be renewed, others could", list(renewed).count(None))
            for lease, held in zip(leases, renewed, strict=True):
                if lease not in self._held or held is None:
                    continue  # its end overtook our question; or there is no answer
                if held and lease.loss() is None:
                    lease.extend(started)
                elif not lease.committing:
                    lease.lose("lease_expired")
                    self._on_lapse(lease)
