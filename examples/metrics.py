"""What sessions cost, for Prometheus to fetch: how long locks are waited for and held, and what gets lost.

Start it with `python metrics.py --port 8000`, visit /visits a few times, and look at /metrics. It is for one process:
of several workers a fetch reaches only one, so have each push its numbers instead, as OpenTelemetry does.
"""

import argparse
from bisect import bisect_left
from collections import Counter
from functools import partial

import trio
from hypercorn.config import Config

from trio_session import SessionEvent, SessionInstrument
from trio_session.serving import run
from trio_session.web import App, Request, Response

BOUNDS = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0)  # seconds, of the histograms' buckets


class Histogram:
    """How many of what was measured were at most so long."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.sum += seconds

    def lines(self, name: str, meaning: str) -> list[str]:
        """It in Prometheus's text format: the buckets add up."""
        lines, total = [f"# HELP {name} {meaning}", f"# TYPE {name} histogram"], 0
        for bound, count in zip((*BOUNDS, "+Inf"), self.counts, strict=True):
            total += count
            lines.append(f'{name}_bucket{{le="{bound}"}} {total}')
        return [*lines, f"{name}_sum {self.sum:.6f}", f"{name}_count {total}"]


class Metrics(SessionInstrument):
    """Counts what happens. Hooks are plain calls in the request's own task, so there is nothing to lock here."""

    def __init__(self) -> None:
        self.waited = Histogram()
        self.held = Histogram()
        self.ends = Counter[str]()
        self.sessions = Counter[str]()

    def lock_acquired(self, event: SessionEvent) -> None:
        """How long a request had to wait is the first thing to look at."""
        self.waited.observe(event.waited)

    def lock_released(self, event: SessionEvent) -> None:
        """Whoever holds for long makes others wait."""
        self.held.observe(event.held)

    def lock_abandoned(self, event: SessionEvent) -> None:
        """A visitor who got no answer, or did not wait for it."""
        self.ends[f"abandoned_{event.reason}"] += 1

    def lock_lost(self, event: SessionEvent) -> None:
        """The one to be woken up for."""
        self.ends[f"lost_{event.reason}"] += 1

    def session_committed(self, event: SessionEvent) -> None:
        """As it should be."""
        self.ends["committed"] += 1

    def session_rolled_back(self, event: SessionEvent) -> None:
        """By an exception or a cancellation, or because the commit was refused."""
        self.ends["rolled_back"] += 1

    def session_created(self, event: SessionEvent) -> None:
        """A new visitor, or a robot without cookies."""
        self.sessions["created"] += 1

    def session_destroyed(self, event: SessionEvent) -> None:
        """A logout."""
        self.sessions["destroyed"] += 1

    def text(self) -> str:
        """All of it in Prometheus's text format."""
        lines = self.waited.lines("session_lock_wait_seconds", "How long locks were waited for.")
        lines += self.held.lines("session_lock_hold_seconds", "How long locks were held.")
        for name, meaning, counter in (
            ("session_locks_total", "How locks ended.", self.ends),
            ("sessions_total", "What became of sessions.", self.sessions),
        ):
            lines += [f"# HELP {name} {meaning}", f"# TYPE {name} counter"]
            lines += [f'{name}{{what="{what}"}} {count}' for what, count in sorted(counter.items())]
        return "\n".join(lines) + "\n"


metrics = Metrics()
app = App(instruments=[metrics])


@app.get("/visits")
async def visits(request: Request) -> dict[str, int]:
    """Count this visitor's visits, slowly enough for somebody to have to wait."""
    async with request.session.locked() as data:
        await trio.sleep(0.01)
        data["visits"] = data.get("visits", 0) + 1
    return {"visits": data["visits"]}


@app.get("/metrics", autoload=False)
async def show_metrics(_: Request) -> Response:
    """For Prometheus. In earnest, on a port of its own: not everybody needs to know."""
    return Response(metrics.text(), content_type="text/plain; version=0.0.4; charset=utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8000)
    config = Config.from_mapping(bind=f"127.0.0.1:{parser.parse_args().port}", loglevel="WARNING")
    run(app, config, announce=partial(print, "Serving at", flush=True))
