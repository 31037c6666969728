"""Who of this process waits for a lock of the server, and the messages that end the wait."""

from __future__ import annotations

from collections.abc import Callable

import trio

__all__ = ["Waiters"]


class Waiters:
    """By name, as it stands in the server's queue.

    Args:
        on_unclaimed: called with the record and the name if a lock was offered to somebody who waits no longer.
    """

    def __init__(self, on_unclaimed: Callable[[str, str], None]) -> None:
        self._on_unclaimed = on_unclaimed
        # None: is asking; True: was called while asking; an event: waits.
        self._calls: dict[str, trio.Event | bool | None] = {}

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, who: str) -> None:
        """From now on `who` may be called."""
        self._calls[who] = None

    def remove(self, who: str) -> None:
        self._calls.pop(who, None)

    async def wait(self, who: str, seconds: float) -> None:
        """Until `who` is called, or was since `add` or the last `wait`; or for so long."""
        if self._calls[who] is None:
            event = self._calls[who] = trio.Event()
            with trio.move_on_after(seconds):
                await event.wait()
        self._calls[who] = None

    def on_offer(self, message: bytes) -> None:
        """The server offers a lock: `message` is the record's key and the name, with a space between."""
        record, _, who = message.decode("ascii", "replace").partition(" ")
        if who in self._calls:
            self._call(who)
        else:
            self._on_unclaimed(record, who)

    def call_all(self) -> None:
        """Messages may have been lost: all should ask again."""
        for who in self._calls:
            self._call(who)

    def _call(self, who: str) -> None:
        call = self._calls[who]
        if isinstance(call, trio.Event):
            call.set()
        else:
            self._calls[who] = True
