"""The benchmarks still run. How fast anything is, no test says: that depends on the machine."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import cast

import pytest

from tests.benchmarks import (
    bench_hypercorn,
    bench_local_store,
    bench_redis,
    bench_redis_cluster,
    bench_redis_contention,
    bench_redis_hypercorn,
    bench_redis_replicas,
)
from tests.benchmarks.__main__ import comparisons, measure_all, reports
from tests.benchmarks._harness import Comparison, Operation, as_markdown, given, measure
from tests.faults._harness import amount


# `make faults` runs them all.
@pytest.mark.parametrize(
    "comparison", amount(comparisons()[::5], comparisons()), ids=lambda comparison: comparison.name
)
async def test_benchmark_runs(comparison: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each comparison gets as far as its row in the table; little of it is enough for that."""
    monkeypatch.setattr(bench_local_store, "LARGE", 1_000)
    for module in (bench_redis, bench_redis_cluster, bench_redis_replicas):
        monkeypatch.setattr(module, "TIMES", 1)
    for module in (bench_hypercorn, bench_redis_hypercorn):
        monkeypatch.setattr(module, "CLIENTS", 2)
    result = await measure(replace(comparison, starts=1), rounds=1, seconds=0.0)
    assert comparison.name in as_markdown([result])


async def test_candidates_that_are_started_anew() -> None:
    """So often there are turns, all of them in one row of the table."""
    opened: list[int] = []

    @asynccontextmanager
    async def open_candidates() -> AsyncIterator[dict[str, Operation]]:
        opened.append(1)
        yield {"a": list, "b": list}

    result = await measure(Comparison(name="made up", open=open_candidates, starts=3), rounds=2, seconds=0.0)
    assert len(opened) == 3
    assert [len(series.wall) for series in result.series.values()] == [6, 6]


@pytest.mark.parametrize("name", amount(list(reports())[:1], list(reports())))
async def test_report_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each report gets as far as its table."""
    monkeypatch.setattr(bench_redis_contention, "CROWDS", (2,))
    assert "|---|" in await reports()[name](1, 0.2)


async def test_a_comparison_that_fails_does_not_stop_the_others() -> None:
    """It is a line at the end, and the others have their rows."""

    async def breaks(rounds: int, seconds: float) -> str:
        raise ZeroDivisionError("nobody got anything")

    async def works(rounds: int, seconds: float) -> str:
        return "a table"

    broken = Comparison(name="broken", open=given({"a": cast("Operation", len)}))
    fine = Comparison(name="fine", open=given({"a": list, "b": list}))
    results, texts, failed = await measure_all([broken, fine], {"bad": breaks, "good": works}, rounds=1, seconds=0.0)
    assert [result.name for result in results] == ["fine"]
    assert texts == ["a table"]
    assert failed == [
        "FAILED: broken: TypeError: len() takes exactly one argument (0 given)",
        "FAILED: bad: ZeroDivisionError: nobody got anything",
    ]


async def test_candidates_take_turns_and_are_compared_with_the_first() -> None:
    """A B A B, never A A B B, and twice the time is a ratio of two."""
    now = 0.0
    turns: list[str] = []

    def costs(name: str, seconds: float) -> Operation:
        async def operation() -> None:
            nonlocal now
            now += seconds
            turns.append(name)

        return operation

    candidates = {"a": costs("a", 1.0), "b": costs("b", 2.0)}
    comparison = Comparison(name="made up", open=given(candidates), clock=lambda: now)
    result = await measure(comparison, rounds=3, seconds=0.0)
    assert result.ratios("b") == [2.0, 2.0, 2.0]
    order = [name for name, _ in itertools.groupby(turns)]
    assert order == ["a", "b"] * (len(order) // 2)
    assert len(order) >= 6
    assert "| made up | b | 2,000,000.00 |" in as_markdown([result])
