"""What was measured, and the few numbers that are told of it. Pure: no server, no clock."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import msgspec

__all__ = ["Contest", "Cost", "Figures", "Record"]


@dataclass(slots=True, kw_only=True)
class Cost:
    """A kind of request, one number per round.

    Attributes:
        cpu: seconds of the server's CPU per request.
        redis_cpu: seconds of the Redis server's CPU per request.
        rate: requests per second.
        round_trips: to Redis, for a single request with nobody else about.
        commands: that Redis carried out for it, those inside of scripts among them.
    """

    cpu: list[float] = field(default_factory=list[float])
    redis_cpu: list[float] = field(default_factory=list[float])
    rate: list[float] = field(default_factory=list[float])
    round_trips: float | None = None
    commands: dict[str, float] = field(default_factory=dict[str, float])


@dataclass(slots=True, kw_only=True)
class Contest:
    """A round in which all clients change one session.

    Attributes:
        rate: changes per second, as answered.
        counts: answers, client by client.
        p50: seconds that a client waits for an answer, half of them less.
        p99: of a hundred waits the second longest, about.
        completed: good answers.
        lost: how many of them the session knows nothing of.
    """

    rate: float
    counts: list[int]
    p50: float
    p99: float
    completed: int
    lost: int


@dataclass(slots=True, kw_only=True)
class Figures:
    """All about one library with one store.

    Attributes:
        name: of the library.
        store: "redis" or "memory".
        server: that it was served by.
        lock: what it promises.
        failures: answers that were not good, and how many.
        problems: sentences on what ended the measurement.
    """

    name: str
    store: str
    server: str
    lock: str
    bare: Cost = field(default_factory=Cost)
    read: Cost = field(default_factory=Cost)
    change: Cost = field(default_factory=Cost)
    contests: list[Contest] = field(default_factory=list[Contest])
    failures: dict[str, int] = field(default_factory=dict[str, int])
    problems: list[str] = field(default_factory=list[str])

    @property
    def is_complete(self) -> bool:
        """Whether there is a number for everything."""
        return bool(self.bare.cpu and self.read.cpu and self.change.cpu and self.contests)

    def added_cpu(self, cost: Cost) -> list[float]:
        """Seconds of CPU that a request costs more than a bare one, round by round."""
        return [mine - bare for mine, bare in zip(cost.cpu, self.bare.cpu, strict=False)]

    @property
    def added_to_read(self) -> float:
        """Microseconds; the median."""
        return statistics.median(self.added_cpu(self.read)) * 1e6

    @property
    def added_to_change(self) -> float:
        """Microseconds; the median."""
        return statistics.median(self.added_cpu(self.change)) * 1e6

    @property
    def contended_rate(self) -> float:
        """Changes of one session per second; the median."""
        return statistics.median(contest.rate for contest in self.contests)

    @property
    def p50(self) -> float:
        """Milliseconds; the median of the rounds'."""
        return statistics.median(contest.p50 for contest in self.contests) * 1e3

    @property
    def p99(self) -> float:
        """Milliseconds; the median of the rounds'."""
        return statistics.median(contest.p99 for contest in self.contests) * 1e3

    @property
    def shares(self) -> tuple[float, float]:
        """What the unluckiest and the luckiest client of a round got, where 1 is a fair share; the medians."""
        means = [statistics.fmean(contest.counts) or 1.0 for contest in self.contests]
        pairs = list(zip(self.contests, means, strict=True))
        low = statistics.median(min(contest.counts) / mean for contest, mean in pairs)
        high = statistics.median(max(contest.counts) / mean for contest, mean in pairs)
        return low, high

    @property
    def completed(self) -> int:
        """Good answers of all rounds."""
        return sum(contest.completed for contest in self.contests)

    @property
    def lost(self) -> int:
        """Updates lost in all rounds."""
        return sum(contest.lost for contest in self.contests)

    @property
    def lost_share(self) -> float:
        """Of the good answers, per cent."""
        return 100 * self.lost / max(1, self.completed)


@dataclass(slots=True, kw_only=True)
class Record:
    """A whole measurement.

    Attributes:
        facts: lines on the machine, the date, and versions.
        versions: of every package that took part.
        rounds: how many turns everybody had.
        seconds: how long a turn took.
        clients: how many asked at once, each with a session of its own.
        contenders: how many changed one session.
        quick: whether it was only a glance.
        busy: whether other work ran on the machine when it began.
    """

    facts: list[str]
    versions: dict[str, str]
    rounds: int
    seconds: float
    clients: int
    contenders: int
    quick: bool
    busy: bool
    figures: list[Figures] = field(default_factory=list[Figures])

    def with_store(self, store: str) -> Sequence[Figures]:
        """Those that were measured to the end, with a store."""
        return [figures for figures in self.figures if figures.store == store and figures.is_complete]

    def as_json(self) -> str:
        """To be kept."""
        return json.dumps(_rounded(asdict(self)), indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Record:
        """As it was kept."""
        return msgspec.json.decode(text, type=cls)


def _rounded(value: Any) -> Any:
    """With as many digits as mean something."""
    match value:
        case float():
            return float(f"{value:.5g}")
        case dict():
            return {name: _rounded(inner) for name, inner in value.items()}
        case list():
            return [_rounded(inner) for inner in value]
        case _:
            return value
