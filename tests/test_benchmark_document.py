"""The page of the benchmarks, from numbers that were made up for it; and that the numbers can be had."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.benchmarks import _beside
from tests.benchmarks._beside import Plan, measure_peers
from tests.benchmarks._document import files
from tests.benchmarks._figures import Contest, Cost, Figures, Record
from tests.benchmarks._peers import OURS, PEERS, Peer
from tests.benchmarks._plots import Bar, Plot, Row, Span, draw

DOCS = Path(__file__).resolve().parent.parent / "docs"
SVG = "{http://www.w3.org/2000/svg}"


def made_up(name: str, store: str, *, added: float, rate: float, lost: int) -> Figures:
    """Two rounds; a bare request costs 100 µs, a read `added` µs more, a change twice as much."""

    def cost(cpu: float) -> Cost:
        seconds = cpu / 1e6
        return Cost(cpu=[seconds, seconds], redis_cpu=[1e-5, 1e-5], rate=[1e6 / cpu] * 2, round_trips=2.0)

    contest = Contest(rate=rate, counts=[1, 5], p50=0.002, p99=0.040, completed=200, lost=lost)
    return Figures(
        name=name,
        store=store,
        server="a server",
        lock="a lock" if lost == 0 else "none",
        bare=cost(100),
        read=cost(100 + added),
        change=cost(100 + 2 * added),
        contests=[contest, contest],
    )


def record(*figures: Figures, quick: bool = False, busy: bool = False) -> Record:
    return Record(
        facts=["date: today"],
        versions={"other": "1.2"},
        rounds=2,
        seconds=1.0,
        clients=64,
        contenders=2,
        quick=quick,
        busy=busy,
        figures=list(figures),
    )


BOTH = record(
    made_up(OURS, "redis", added=50, rate=1000.0, lost=0),
    made_up("other", "redis", added=80, rate=3000.0, lost=50),
    made_up(OURS, "memory", added=20, rate=500.0, lost=0),
)


def test_what_is_better_than_ours_is_bold_and_named() -> None:
    """A reader who looks for where another is ahead finds it in the table and in a list, with what it costs."""
    page = files(BOTH)["benchmarks.md"]
    assert f"| {OURS} | a lock | 1,000 | 2.0 | 40.0 | 0.33 | 1.67 | 0 % |" in page
    assert "| other | none | **3,000** | 2.0 | 40.0 | 0.33 | 1.67 | 25 % |" in page
    assert "- one session, changes/s: other 3,000 (25 % lost); trio_session 1,000\n" in page
    assert "added CPU, µs: other" not in page
    assert "date: today" in page
    assert "other 1.2" in page


def test_numbers_that_read_alike_make_no_winner() -> None:
    """A hundredth of a microsecond is not an advantage."""
    page = files(
        record(
            made_up(OURS, "redis", added=50.001, rate=1.0, lost=0), made_up("x", "redis", added=50, rate=1.0, lost=0)
        )
    )
    assert "In none of these numbers." in page["benchmarks.md"]


def test_a_glance_says_so_and_so_does_a_busy_machine() -> None:
    """Numbers of a quick run, or beside other work, are not taken for more than they are."""
    assert "busy machine" not in files(BOTH)["benchmarks.md"]
    assert "busy machine" in files(record(*BOTH.figures, busy=True))["benchmarks.md"]
    assert "--quick`: few rounds" not in files(BOTH)["benchmarks.md"]
    assert "--quick`: few rounds" in files(record(*BOTH.figures, quick=True))["benchmarks.md"]


def test_a_library_that_failed_is_a_line() -> None:
    """It is in no table and no plot, and the others are."""
    broken = Figures(name="broken", store="redis", server="s", lock="none", problems=["RuntimeError: it did not start"])
    limping = made_up("limping", "redis", added=1, rate=1.0, lost=-3)
    limping.failures["HTTP 500 from /change"] = 7
    made = files(record(*BOTH.figures, broken, limping))
    page = made["benchmarks.md"]
    assert "- broken, redis: RuntimeError: it did not start\n" in page
    assert "- limping, redis: 7 times HTTP 500 from /change\n" in page
    assert "- limping, redis: 6 updates more than were answered for\n" in page
    assert "| broken |" not in page
    assert all("broken" not in text for name, text in made.items() if name.endswith(".svg"))
    assert "What went wrong" not in files(BOTH)["benchmarks.md"]


def test_a_page_without_any_number_is_still_a_page() -> None:
    """If all of them fail, nothing crashes: the page says why, and the plots are empty."""
    made = files(record(Figures(name=OURS, store="redis", server="s", lock="l", problems=["OSError: no"])))
    assert "OSError: no" in made["benchmarks.md"]
    for name, text in made.items():
        if name.endswith(".svg"):
            ET.fromstring(text)


def test_numbers_are_kept_and_read_again() -> None:
    """The page can be written anew from the file beside it."""
    made = files(BOTH)
    assert files(Record.from_json(made["_static/benchmarks.json"])) == made


def test_the_page_in_docs_is_what_its_numbers_say() -> None:
    """Who changes the page's words or plots writes it anew: `make bench ARGS=--redraw`."""
    kept = Record.from_json((DOCS / "_static/benchmarks.json").read_text("utf-8"))
    for path, text in files(kept).items():
        assert (DOCS / path).read_text("utf-8") == text, f"{path}: make bench ARGS=--redraw"


def bars(*values: float) -> Plot:
    rows = [Row(f"<{value}>", "&", [Bar(value, f"{value} µs", (value, value))], own=value == 0) for value in values]
    return Plot("A & B", "less < more", rows)


def spans(*ends: tuple[float, float]) -> Plot:
    rows = [Row("x", "y", [Span(low, high, f"{low} … {high}")]) for low, high in ends]
    return Plot("C", "D", rows, logarithmic=True)


@pytest.mark.parametrize(
    "plot",
    [
        bars(),
        bars(0.0),
        bars(-70.0, 3.0, 1200.0),
        bars(-5.0, -1.0),
        bars(1e-7),
        spans(),
        spans((0.0, 0.0)),
        spans((0.4, 31.0), (7.0, 3000.0)),
        spans((10.0, 10.0)),
    ],
    ids=lambda plot: f"{plot.title}{len(plot.rows)}",
)
def test_marks_stay_in_the_picture(plot: Plot) -> None:
    """Nothing, less than nothing, and much: all of it is drawn where it can be seen."""
    root = ET.fromstring(draw(plot))
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    rectangles = root.findall(f"{SVG}rect[@rx='2']")
    assert len(rectangles) == len(plot.rows)
    for rectangle in rectangles:
        x, y, w, h = (float(rectangle.attrib[name]) for name in ("x", "y", "width", "height"))
        assert w >= 3
        assert 0 <= x <= x + w <= width
        assert 0 <= y <= y + h <= height


def test_longer_is_more() -> None:
    """Twice the value is twice the length, and ten times is one line of a logarithmic grid further."""

    def widths(plot: Plot) -> list[float]:
        return [float(one.attrib["width"]) for one in ET.fromstring(draw(plot)).findall(f"{SVG}rect[@rx='2']")]

    one, two = widths(bars(50.0, 100.0))
    assert two == pytest.approx(2 * one, abs=0.2)
    decade, two_decades = widths(spans((1.0, 10.0), (1.0, 100.0)))
    assert two_decades == pytest.approx(2 * decade, abs=0.2)


def test_plots_can_be_read_by_those_who_do_not_see() -> None:
    """A title and a description with every number; and what a library calls itself is text, not markup."""
    root = ET.fromstring(draw(bars(3.0, 1200.0)))
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-labelledby"] == "title desc"
    assert root.findtext(f"{SVG}title") == "A & B"
    assert root.findtext(f"{SVG}desc") == "less < more. <3.0>: 3.0 µs; <1200.0>: 1200.0 µs."


def test_rows_are_sorted_and_ours_stands_out() -> None:
    """The best is on top, those that lose updates come after those that do not, and one name is bold."""
    plot = files(record(*BOTH.figures, made_up("third", "redis", added=9, rate=200.0, lost=0)))
    texts = re.findall(r'<text[^>]*text-anchor="end">([^<]+)</text>', plot["_static/bench-contended.svg"])
    assert [name for name in texts if name != "a server"] == [OURS, "third", "other"]
    for name, text in plot.items():
        if name.endswith(".svg"):
            assert re.findall(r'<text class="ours"[^>]*>([^<]+)</text>', text) == [OURS]


def where(test: Callable[[Peer], bool]) -> Peer:
    return next(peer for peer in PEERS if test(peer))


def test_numbers_can_be_had_and_who_cannot_start_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own application is measured over HTTP beside one that is not there."""
    monkeypatch.setattr(_beside, "CLIENTS", 4)
    monkeypatch.setattr(_beside, "CONTENDERS", 4)
    monkeypatch.setattr(_beside, "_ALONE", 10)
    ours = where(lambda peer: peer.name == OURS and peer.store == "redis")
    nobody = Peer(name="nobody", module="none", server="none", command="no_such_module {fd}", lock="none", packages=())
    measured = measure_peers(Plan(rounds=1, seconds=0.1), [nobody, ours])
    one, two = measured.figures
    assert not one.is_complete
    assert "No module named" in one.problems[0]
    assert sys.prefix not in one.problems[0], "the page is no place for a path of this machine"
    assert two.problems == []
    assert two.is_complete
    assert two.lost == 0
    assert two.read.round_trips is not None
    assert two.read.round_trips >= 1
    assert "| nobody |" not in files(measured)["benchmarks.md"]
