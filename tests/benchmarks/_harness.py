"""Paired, interleaved measurements.

A busy or throttled machine is slow for seconds at a time. Measured one after the other, two candidates see two
different machines; measured in turns (A B A B …), both see the same one, and the ratio of each pair of turns stays
true where the times themselves do not. So look at the ratios first.
"""

from __future__ import annotations

import gc
import inspect
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import repeat
from typing import Literal

# One call of it is one operation. What can wait is written `async def`; the other kind is not awaited.
Operation = Callable[[], object] | Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Candidates for one job.

    Attributes:
        name: what is done, in a few words.
        open: gives the candidates, the first of which the others are compared with. An async context manager,
            so that servers and managers can be opened around the measurement.
        clock: what is measured besides the wall: `time.process_time`, or `time.thread_time` where other
            threads of this process work too.
        starts: so often they are opened anew, for all rounds again. What a server costs depends by some percent on
            where in memory its process happens to lie, so one start alone shows luck.
    """

    name: str
    open: Callable[[], AbstractAsyncContextManager[dict[str, Operation]]]
    clock: Callable[[], float] = time.process_time
    starts: int = 1


@dataclass(slots=True)
class Series:
    """What was measured of one candidate, a number per turn, in seconds per operation."""

    cpu: list[float] = field(default_factory=list[float])
    wall: list[float] = field(default_factory=list[float])


@dataclass(frozen=True, slots=True)
class Result:
    """All turns of one comparison; turns with the same index belong together."""

    name: str
    series: dict[str, Series]

    def ratios(self, candidate: str, clock: Literal["cpu", "wall"] = "cpu") -> list[float]:
        """Time of `candidate` divided by the first candidate's, turn by turn."""
        first = next(iter(self.series.values()))
        pairs = zip(getattr(self.series[candidate], clock), getattr(first, clock), strict=True)
        return [mine / theirs for mine, theirs in pairs if theirs > 0]


def given(candidates: dict[str, Operation]) -> Callable[[], AbstractAsyncContextManager[dict[str, Operation]]]:
    """The `open` of a comparison that has nothing to open."""

    @asynccontextmanager
    async def open_candidates() -> AsyncIterator[dict[str, Operation]]:
        yield candidates

    return open_candidates


async def measure(comparison: Comparison, *, rounds: int, seconds: float) -> Result:
    """Let the candidates take turns.

    Args:
        comparison: who takes part.
        rounds: how many turns each candidate gets per start.
        seconds: how long a turn should take, about.
    """
    series: dict[str, Series] = {}
    for _ in range(comparison.starts):
        async with comparison.open() as candidates:
            counts = {name: await _operations_within(operation, seconds) for name, operation in candidates.items()}
            for _ in range(rounds):
                for name, operation in candidates.items():
                    cpu, wall = await _turn(operation, counts[name], comparison.clock)
                    turns = series.setdefault(name, Series())
                    turns.cpu.append(cpu)
                    turns.wall.append(wall)
    return Result(comparison.name, series)


async def _operations_within(operation: Operation, seconds: float) -> int:
    """How many operations take about so long. Warms up on the way."""
    count = 1
    while True:
        _, wall = await _turn(operation, count, time.process_time)
        if wall * count >= seconds / 2:
            return max(1, round(seconds / max(wall, 1e-9)))
        count *= 2


async def _turn(operation: Operation, count: int, clock: Callable[[], float]) -> tuple[float, float]:
    """CPU and wall time per operation."""
    with _no_garbage_collection():
        wall, cpu = time.perf_counter(), clock()
        if inspect.iscoroutinefunction(getattr(operation, "func", operation)):  # a partial hides what it is
            for _ in repeat(None, count):
                await operation()  # type: ignore[misc]
        else:
            for _ in repeat(None, count):
                operation()
        return (clock() - cpu) / count, (time.perf_counter() - wall) / count


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """As `timeit`: the collector runs between the turns, so that none pays for another's garbage."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def as_markdown(results: Sequence[Result]) -> str:
    """A table with a row per candidate. The quartiles of the ratio say how far to trust it."""
    lines = [
        "| what | candidate | CPU µs | wall µs | ratio of CPU | its quartiles | ratio of wall | its quartiles |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for result in results:
        for name, series in result.series.items():
            columns = [statistics.median(times) * 1e6 for times in (series.cpu, series.wall)]
            ratios = [_show_ratios(result.ratios(name, clock)) for clock in ("cpu", "wall")]
            lines.append(
                " | ".join([f"| {result.name}", name, *(f"{value:,.2f}" for value in columns), *ratios]) + " |"
            )
    return "\n".join(lines)


def _show_ratios(ratios: list[float]) -> str:
    low, middle, high = _quartiles(ratios or [float("nan")])
    return f"{middle:.3f} | {low:.3f} … {high:.3f}"


def _quartiles(values: list[float]) -> tuple[float, float, float]:
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high
