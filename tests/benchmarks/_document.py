"""The page `docs/benchmarks.md` and its plots, made from what was measured. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ._figures import Cost, Figures, Record
from ._peers import OURS
from ._plots import Bar, Plot, Row, Span, draw
from ._prose import BESIDE, BUSILY, CONTENDED, COSTS, INTRODUCTION, LIMITS, MEMORY, METHOD, QUICKLY, RATES, REPEAT

__all__ = ["MEASURES", "Measure", "files"]


@dataclass(frozen=True, slots=True)
class Measure:
    """A number by which libraries can be compared.

    Attributes:
        title: what it is, as the head of a column.
        value: takes it from the figures.
        show: makes it a text.
        more_is_better: which of two is the better one.
        store: "redis" or "memory", where it is told of.
        is_contest: whether it says nothing without the updates that were lost.
    """

    title: str
    value: Callable[[Figures], float | None]
    show: Callable[[float], str]
    more_is_better: bool = False
    store: str = "redis"
    is_contest: bool = False

    def tell(self, row: Figures) -> str:
        """For a sentence."""
        value = self.value(row)
        told = "" if value is None else self.show(value)
        return f"{told} ({_per_cent(row.lost_share)} lost)" if self.is_contest and row.lost > 0 else told

    def is_better(self, one: Figures, other: Figures) -> bool:
        """Whether `one` is ahead, as far as a reader sees it."""
        mine, theirs = self.value(one), self.value(other)
        if mine is None or theirs is None or self.show(mine) == self.show(theirs):
            return False
        return mine > theirs if self.more_is_better else mine < theirs


def _whole(value: float) -> str:
    return f"{value:,.0f}"


def _tenths(value: float) -> str:
    return f"{value:,.1f}"


def _hundredths(value: float) -> str:
    return f"{value:.2f}"


def _microseconds(value: float) -> str:
    return f"{value:+,.0f}"


def _per_cent(value: float) -> str:
    return f"{value:.0f} %" if value == 0 or abs(value) >= 1 else f"{value:.2g} %"


def _rate(cost: Cost) -> float:
    return statistics.median(cost.rate)


COST_MEASURES = (
    Measure("read: added CPU, µs", lambda one: one.added_to_read, _microseconds),
    Measure("change: added CPU, µs", lambda one: one.added_to_change, _microseconds),
    Measure("change: Redis's CPU, µs", lambda one: statistics.median(one.change.redis_cpu) * 1e6, _whole),
    Measure("read: round trips", lambda one: one.read.round_trips, _tenths),
    Measure("change: round trips", lambda one: one.change.round_trips, _tenths),
)
RATE_MEASURES = (
    Measure("bare: requests/s", lambda one: _rate(one.bare), _whole, more_is_better=True),
    Measure("read: requests/s", lambda one: _rate(one.read), _whole, more_is_better=True),
    Measure("change: requests/s", lambda one: _rate(one.change), _whole, more_is_better=True),
)
CONTEST_MEASURES = (
    Measure("changes/s", lambda one: one.contended_rate, _whole, more_is_better=True, is_contest=True),
    Measure("p50, ms", lambda one: one.p50, _tenths, is_contest=True),
    Measure("p99, ms", lambda one: one.p99, _tenths, is_contest=True),
    Measure("share of the unluckiest", lambda one: one.shares[0], _hundredths, more_is_better=True, is_contest=True),
    Measure("share of the luckiest", lambda one: one.shares[1], _hundredths, is_contest=True),
    Measure("lost updates", lambda one: one.lost_share, _per_cent),
)
MEMORY_MEASURES = (
    Measure("read: added CPU, µs", lambda one: one.added_to_read, _microseconds, store="memory"),
    Measure("change: added CPU, µs", lambda one: one.added_to_change, _microseconds, store="memory"),
    Measure(
        "one session: changes/s",
        lambda one: one.contended_rate,
        _whole,
        more_is_better=True,
        store="memory",
        is_contest=True,
    ),
    Measure("p99, ms", lambda one: one.p99, _tenths, store="memory", is_contest=True),
    Measure("lost updates", lambda one: one.lost_share, _per_cent, store="memory"),
)
MEASURES = {
    "cost of a request": COST_MEASURES,
    "throughput": RATE_MEASURES,
    "one session": CONTEST_MEASURES,
    "in memory": MEMORY_MEASURES,
}


def files(record: Record) -> dict[str, str]:
    """All that belongs to the document, by its path under `docs`."""
    kept = record.as_json()
    record = Record.from_json(kept)  # rounded: so the page can be made again from what is kept
    plots = _plots(record)
    pictures = {f"_static/bench-{name}.svg": draw(plot) for name, plot in plots.items()}
    return {"benchmarks.md": _page(record, plots), "_static/benchmarks.json": kept, **pictures}


def _page(record: Record, plots: dict[str, Plot]) -> str:
    remote, local = record.with_store("redis"), record.with_store("memory")

    def show(*names: str) -> str:
        return "\n\n".join(f"![{plots[name].title}](_static/bench-{name}.svg)" for name in names)

    sections = [
        "# Benchmarks",
        INTRODUCTION,
        *([QUICKLY] if record.quick else []),
        *([BUSILY] if record.busy else []),
        "\n".join(f"- {fact}" for fact in record.facts),
        "## What a session costs a request",
        COSTS.format(clients=record.clients),
        _table(remote, COST_MEASURES, server=True),
        show("cpu", "round-trips"),
        _commands(remote),
        RATES,
        _table(remote, RATE_MEASURES, server=True),
        "## One session that everybody wants",
        CONTENDED.format(contenders=record.contenders),
        _table(remote, CONTEST_MEASURES, server=False),
        show("contended", "p99", "fairness", "lost"),
        "## In memory",
        MEMORY,
        _table(local, MEMORY_MEASURES, server=True),
        "## Where another library is better",
        BESIDE,
        _better(record),
        *_trouble(record),
        "## How it was measured",
        METHOD.format(rounds=record.rounds, seconds=f"{record.seconds:g}"),
        "## What this does not say",
        LIMITS,
        "## Repeat it",
        REPEAT,
        _versions(record),
    ]
    return "\n\n".join(sections) + "\n"


def _table(rows: Sequence[Figures], measures: Sequence[Measure], *, server: bool) -> str:
    """A row for each library; bold is what is better than ours."""
    ours = _own(rows)
    lines = [
        f"| library | {'server' if server else 'lock'} | {' | '.join(measure.title for measure in measures)} |",
        f"|---|---|{'--:|' * len(measures)}",
    ]
    for row in rows:
        cells = [row.name, row.server if server else row.lock]
        for measure in measures:
            value = measure.value(row)
            text = "" if value is None else measure.show(value)
            cells.append(f"**{text}**" if ours is not None and _is_ahead(row, ours, measure) else text)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _own(rows: Sequence[Figures]) -> Figures | None:
    return next((row for row in rows if row.name == OURS), None)


def _is_ours(row: Figures) -> bool:
    return row.name.startswith(OURS)


def _is_ahead(row: Figures, ours: Figures, measure: Measure) -> bool:
    return not _is_ours(row) and measure.is_better(row, ours)


def _better(record: Record) -> str:
    """A line for each measure in which anybody is ahead of us."""
    lines: list[str] = []
    for chapter, measures in MEASURES.items():
        for measure in measures:
            rows = record.with_store(measure.store)
            ours = _own(rows)
            ahead = [row for row in rows if ours is not None and _is_ahead(row, ours, measure)]
            if ours is not None and ahead:
                ahead.sort(key=lambda row: measure.value(row) or 0.0, reverse=measure.more_is_better)
                named = ", ".join(f"{row.name} {measure.tell(row)}" for row in ahead)
                lines.append(f"- {chapter}, {measure.title}: {named}; {OURS} {measure.tell(ours)}")
    return "\n".join(lines) or "In none of these numbers."


def _commands(rows: Sequence[Figures]) -> str:
    lines = ["| library | commands of a read | of a change |", "|---|---|---|"]
    for row in rows:
        cells = [
            ", ".join(f"{name} {calls:g}" for name, calls in cost.commands.items()) for cost in (row.read, row.change)
        ]
        lines.append(f"| {row.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _trouble(record: Record) -> list[str]:
    """What went wrong, if anything did."""
    lines: list[str] = []
    for one in record.figures:
        lines += [f"- {one.name}, {one.store}: {problem}" for problem in one.problems]
        lines += [f"- {one.name}, {one.store}: {number} times {failure}" for failure, number in one.failures.items()]
        if one.lost < 0:
            lines.append(f"- {one.name}, {one.store}: {-one.lost} updates more than were answered for")
    return ["## What went wrong", "\n".join(lines)] if lines else []


def _versions(record: Record) -> str:
    return "Versions: " + ", ".join(f"{name} {version}" for name, version in record.versions.items()) + "."


def _plots(record: Record) -> dict[str, Plot]:
    rows = record.with_store("redis")
    return {
        "cpu": Plot(
            "CPU that a session adds to a request",
            "µs of the server's CPU, beside its own bare application; the first bar a change, the second a read; "
            "less is better",
            [
                _row(row, [_cpu_bar(row, row.change, "change"), _cpu_bar(row, row.read, "read")])
                for row in sorted(rows, key=lambda row: row.added_to_change)
            ],
        ),
        "round-trips": Plot(
            "Round trips to Redis for a request",
            "with nobody else about; the first bar a change, the second a read; less is better",
            [
                _row(row, [_trips_bar(row.change, "change"), _trips_bar(row.read, "read")])
                for row in sorted(rows, key=lambda row: (row.change.round_trips or 0, row.read.round_trips or 0))
            ],
        ),
        "contended": Plot(
            f"Changes of one session by {record.contenders} clients",
            "per second; hollow: without a lock, most of them are lost; more is better",
            [
                _row(row, [Bar(row.contended_rate, _whole(row.contended_rate))], hollow=row.lost > 0)
                for row in sorted(rows, key=lambda row: (row.lost > 0, -row.contended_rate))
            ],
        ),
        "p99": Plot(
            f"How long {record.contenders} clients wait for one session",
            "ms, from the middle of all answers (p50) to the slowest hundredth (p99); hollow: without a lock; "
            "less is better",
            [
                _row(row, [Span(row.p50, row.p99, f"{row.p50:,.1f} … {row.p99:,.1f}")], hollow=row.lost > 0)
                for row in sorted(rows, key=lambda row: (row.lost > 0, row.p99))
            ],
            logarithmic=True,
        ),
        "fairness": Plot(
            f"How evenly {record.contenders} clients share one session",
            "what the unluckiest and the luckiest client get, where a fair share is 1; narrow is better",
            [
                _row(row, [Span(*row.shares, " … ".join(map(_hundredths, row.shares)))], hollow=row.lost > 0)
                for row in sorted(rows, key=lambda row: (row.lost > 0, row.shares[1] - row.shares[0]))
            ],
            reference=(1.0, "fair"),
        ),
        "lost": Plot(
            f"Updates lost when {record.contenders} clients change one session",
            "per cent of the changes that were answered with success; none is right",
            [
                _row(row, [Bar(row.lost_share, f"{_per_cent(row.lost_share)} of {row.completed:,}")])
                for row in sorted(rows, key=lambda row: row.lost_share)
            ],
        ),
    }


def _row(row: Figures, marks: Sequence[Bar | Span], *, hollow: bool = False) -> Row:
    return Row(row.name, row.server, marks, own=_is_ours(row), hollow=hollow)


def _cpu_bar(row: Figures, cost: Cost, what: str) -> Bar:
    rounds = [added * 1e6 for added in row.added_cpu(cost)]
    value = statistics.median(rounds)
    return Bar(value, f"{_microseconds(value)} {what}", (min(rounds), max(rounds)))


def _trips_bar(cost: Cost, what: str) -> Bar:
    return Bar(cost.round_trips or 0.0, f"{cost.round_trips or 0.0:g} {what}")
