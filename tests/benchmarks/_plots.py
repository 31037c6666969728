"""Plots as SVG, drawn by hand: rows sorted, each with its numbers beside it, so that nobody needs a legend or colours.

Pure. They carry their own background and look right on light pages and dark ones; `title` and `desc` say the same to
those who do not see.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

__all__ = ["Bar", "Plot", "Row", "Span", "draw"]

_WIDTH = 600  # a phone shrinks it to three fifths, and the letters are legible still
_LEFT, _RIGHT = 156, 122  # where the marks begin; room for the numbers after them
_LINE = 84  # letters of a subtitle
_BAR, _GAP, _ROW = 14, 3, 18  # heights: of a bar, between two of a row, between two rows
_TINY = 3  # pixels; what is nothing is still seen

# Each colour against its background: text 7:1 or better, marks 3:1 (WCAG 2.2, 1.4.6 and 1.4.11).
_STYLE = """
text { font: 14px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; fill: #1f2328 }
.title { font-size: 17px; font-weight: 600 } .ours { font-weight: 700 } .soft { fill: #4d555e; font-size: 13px }
.back { fill: #ffffff; stroke: #d1d9e0 } .line { stroke: #d1d9e0 } .zero { stroke: #59636e }
.mark { fill: #7d8590; stroke: #7d8590 } .mark.own { fill: #0b7a75; stroke: #0b7a75 }
.mark.second { fill-opacity: .45 } .mark.hollow { fill-opacity: 0; stroke-dasharray: 3 2 }
.spread { stroke: #1f2328; stroke-width: 1.5 }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc } .soft { fill: #b7bdc8 } .back { fill: #0d1117; stroke: #3d444d } .line { stroke: #3d444d }
.zero { stroke: #9198a1 } .mark { fill: #8b949e; stroke: #8b949e } .mark.own { fill: #3ad1c6; stroke: #3ad1c6 }
.spread { stroke: #f0f6fc }
}
""".strip()


@dataclass(frozen=True, slots=True)
class Bar:
    """From zero to a value.

    Attributes:
        value: how long it is.
        text: the number as a reader wants it.
        spread: the lowest and the highest of the rounds.
    """

    value: float
    text: str
    spread: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """From one value to another."""

    low: float
    high: float
    text: str


@dataclass(frozen=True, slots=True)
class Row:
    """A library.

    Attributes:
        name: of it.
        below: in smaller letters, what it runs on.
        marks: drawn below one another.
        own: whether it is this library.
        hollow: whether its numbers are not worth what they look like.
    """

    name: str
    below: str
    marks: Sequence[Bar | Span]
    own: bool = False
    hollow: bool = False


@dataclass(frozen=True, slots=True)
class Plot:
    """What is drawn.

    Attributes:
        title: what is seen.
        subtitle: the unit, and which way is better.
        rows: the best first.
        logarithmic: whether each line of the grid is ten times the one before.
        reference: a value with a line of its own, and what it is.
    """

    title: str
    subtitle: str
    rows: Sequence[Row]
    logarithmic: bool = False
    reference: tuple[float, str] | None = None


def draw(plot: Plot) -> str:
    """The picture, as a text in SVG."""
    place, grid = _scale(plot)
    subtitle = textwrap.wrap(plot.subtitle, _LINE)
    top = 62 + 17 * len(subtitle) + (10 if plot.reference else 0)
    body: list[str] = []
    y = top
    for row in plot.rows:
        height = len(row.marks) * (_BAR + _GAP) - _GAP
        body += _draw_row(row, y, max(height, 30), place)
        y += max(height, 30) + _ROW
    foot = y - _ROW + 10
    lines = [f'<line class="line" x1="{x:.1f}" x2="{x:.1f}" y1="{top - 8}" y2="{foot}"/>' for _, x in grid]
    lines += [f'<text class="soft" x="{x:.1f}" y="{foot + 15}" text-anchor="middle">{text}</text>' for text, x in grid]
    if plot.reference is not None:
        x = place(plot.reference[0])
        lines += [
            f'<line class="zero" x1="{x:.1f}" x2="{x:.1f}" y1="{top - 8}" y2="{foot}"/>',
            f'<text class="soft" x="{x:.1f}" y="{top - 12}" text-anchor="middle">{escape(plot.reference[1])}</text>',
        ]
    height = foot + 28
    size, named = f'width="{_WIDTH}" height="{height}"', 'aria-labelledby="title desc"'
    said = "; ".join(f"{row.name}: {', '.join(mark.text for mark in row.marks)}" for row in plot.rows)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" {size} role="img" {named}>',
            f'<title id="title">{escape(plot.title)}</title>',
            f'<desc id="desc">{escape(f"{plot.subtitle}. {said}.")}</desc>',
            f"<style>{_STYLE}</style>",
            f'<rect class="back" x=".5" y=".5" width="{_WIDTH - 1}" height="{height - 1}" rx="6"/>',
            f'<text class="title" x="16" y="28">{escape(plot.title)}</text>',
            *(
                f'<text class="soft" x="16" y="{48 + 17 * number}">{escape(line)}</text>'
                for number, line in enumerate(subtitle)
            ),
            *lines,
            *body,
            "</svg>\n",
        ]
    )


def _draw_row(row: Row, y: float, height: float, place: Callable[[float], float]) -> list[str]:
    weight = ' class="ours"' if row.own else ""
    middle = y + height / 2
    lines = [
        f'<text{weight} x="{_LEFT - 12}" y="{middle - 2:.1f}" text-anchor="end">{escape(row.name)}</text>',
        f'<text class="soft" x="{_LEFT - 12}" y="{middle + 13:.1f}" text-anchor="end">{escape(row.below)}</text>',
    ]
    y = middle - (len(row.marks) * (_BAR + _GAP) - _GAP) / 2
    for number, mark in enumerate(row.marks):
        kind = " ".join(
            [
                "mark",
                *(["own"] if row.own else []),
                *(["hollow"] if row.hollow else []),
                *(["second"] if number else []),
            ]
        )
        lines += _draw_mark(mark, kind, y, place)
        y += _BAR + _GAP
    return lines


def _draw_mark(mark: Bar | Span, kind: str, y: float, place: Callable[[float], float]) -> list[str]:
    low, high = (min(mark.value, 0.0), max(mark.value, 0.0)) if isinstance(mark, Bar) else (mark.low, mark.high)
    left, right = place(low), place(high)
    width = max(right - left, _TINY)
    end = max(left + width, place(0.0) if isinstance(mark, Bar) else 0.0)
    lines = [f'<rect class="{kind}" x="{left:.1f}" y="{y:.1f}" width="{width:.1f}" height="{_BAR}" rx="2"/>']
    if isinstance(mark, Bar) and mark.spread is not None:
        x1, x2 = map(place, mark.spread)
        end = max(end, x2)
        lines.append(f'<line class="spread" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y + _BAR / 2}" y2="{y + _BAR / 2}"/>')
    lines.append(f'<text x="{end + 7:.1f}" y="{y + _BAR - 2.5:.1f}">{escape(mark.text)}</text>')
    return lines


def _scale(plot: Plot) -> tuple[Callable[[float], float], list[tuple[str, float]]]:
    """Where a value is, in pixels from the left; and the lines of the grid, named."""
    values = [value for row in plot.rows for mark in row.marks for value in _ends(mark)]
    width = _WIDTH - _LEFT - _RIGHT
    if plot.logarithmic:
        positive = [max(value, 1e-3) for value in values] or [1.0]
        least = math.floor(math.log10(min(positive)))
        decades = max(1, math.ceil(math.log10(max(positive))) - least)

        def place_logarithm(value: float) -> float:
            return _LEFT + width * (math.log10(max(value, 10.0**least)) - least) / decades

        marks = [10.0 ** (least + number) for number in range(decades + 1)]
        return place_logarithm, [(_show(value), place_logarithm(value)) for value in marks]

    low, high = min([0.0, *values]), max([0.0, *values])
    step = _step((high - low) / 5)
    low, high = math.floor(low / step) * step, max(math.ceil(high / step), 1) * step

    def place(value: float) -> float:
        return _LEFT + width * (value - low) / (high - low)

    return place, [
        (_show(low + number * step), place(low + number * step)) for number in range(round((high - low) / step) + 1)
    ]


def _ends(mark: Bar | Span) -> Sequence[float]:
    if isinstance(mark, Span):
        return mark.low, mark.high
    return (mark.value, *(mark.spread or ()))


def _step(least: float) -> float:
    """The next of 1, 2, 5, 10, 20 and so on."""
    if least <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least * (1 - 1e-9))


def _show(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1 or value == 0 else f"{value:g}"
