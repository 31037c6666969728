"""What is to go wrong, and with which request. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["Fault", "Faults", "Only"]

#: Which requests a fault is for: those of a command or a script, by name, or those for whose words the function is
#: true; None: the next one, whatever it is.
Only: TypeAlias = "str | Callable[[list[bytes]], bool] | None"


@dataclass(slots=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        only: with which requests.
        times: how often.
        request_bytes: so much of the request arrives, and nothing afterwards.
        reply_bytes: so much of the reply gets through, and nothing afterwards.
        error: the reply, instead of executing the request.
    """

    only: Only
    times: float = 1
    request_bytes: int | None = None
    reply_bytes: int = 0
    error: str | None = None

    def is_for(self, names: list[str], words: list[bytes]) -> bool:
        if self.only is None:
            return True
        if isinstance(self.only, str):
            return self.only.lower() in [name.lower() for name in names]
        return self.only(words)


class Faults:
    """Faults that have yet to strike, in the order in which they were asked for."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def __len__(self) -> int:
        return len(self._faults)

    def add(self, fault: Fault) -> None:
        if fault.times > 0:
            self._faults.append(fault)

    def clear(self) -> None:
        self._faults.clear()

    def strike(self, names: list[str], words: list[bytes]) -> Fault | None:
        """The fault that a request has to suffer, if any."""
        for fault in self._faults:
            if fault.is_for(names, words):
                fault.times -= 1
                if fault.times <= 0:
                    self._faults.remove(fault)
                return fault
        return None
