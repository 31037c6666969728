"""Draws the life cycle of a session from the code's own table: `python docs/_life_cycle.py` when that has changed."""

from __future__ import annotations

from collections import defaultdict
from html import escape
from pathlib import Path

from trio_session._errors import SessionStateError
from trio_session._states import TRANSITIONS, Action, State, step

PICTURE = Path(__file__).parent / "_static" / "life-cycle.svg"

# Where each state stands, and where the arrows between them run; what they are called is in the table.
BOXES = {
    State.UNREAD: (20, 64),
    State.READ: (320, 64),
    State.LOCKED: (620, 64),
    State.LOST: (620, 274),
    State.FINISHED: (20, 274),
}
WIDTH, HEIGHT = 160, 84
ARROWS = {  # from, to: the path, and where its name stands
    (State.UNREAD, State.READ): ("M180 106 H314", 247, 98),
    (State.UNREAD, State.LOCKED): ("M100 64 C160 22 620 22 692 60", 400, 26),
    (State.READ, State.LOCKED): ("M480 90 H614", 547, 82),
    (State.LOCKED, State.READ): ("M620 124 H486", 550, 142),
    (State.LOST, State.READ): ("M620 316 C500 306 420 240 402 154", 530, 244),
}
# What is not done by a call, so it is not in the table.
WORLD = (
    ("M670 148 V268", 755, 204, "the lease ends, or", "the hold limit passes"),
    ("M340 148 C300 230 250 290 186 314", 190, 212, "the request ends, or", "the manager"),
    ("M100 148 V268", 100, 0, ""),
)


HEAD = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 860 384" role="img"
  aria-label="The life cycle of a session"
  font-family="system-ui, sans-serif" font-size="13" fill="#1f2937">
<style>.box, .arrow { fill: none; stroke: #475569; stroke-width: 1.5 } .box { fill: #fff }</style>
<rect width="860" height="384" rx="10" fill="#f8fafc"/>
<defs><marker id="tip" markerWidth="9" markerHeight="8" refX="7" refY="4" orient="auto">
  <path d="M0 0 L8 4 L0 8 z" fill="#475569"/></marker></defs>"""


def arrows() -> dict[tuple[State, State], list[str]]:
    """The calls that lead from one state to another."""
    found: defaultdict[tuple[State, State], list[str]] = defaultdict(list)
    for (state, action), after in TRANSITIONS.items():
        if state is not after:
            found[state, after].append(action.value)
    return dict(found)


def picture() -> str:
    """The life cycle as SVG, for light and dark pages."""
    parts = [HEAD]
    for (start, end), names in arrows().items():
        path, x, y = ARROWS[start, end]
        parts.append(_arrow(path, ""))
        parts.append(_text(x, y, ", ".join(names)))
    for path, x, y, *lines in WORLD:
        parts.append(_arrow(path, ' stroke-dasharray="5 4"'))
        parts += [_text(x, y + 16 * number, line, ' font-style="italic"') for number, line in enumerate(lines)]
    for state, (x, y) in BOXES.items():
        stays = [action.value for action in Action if TRANSITIONS.get((state, action)) is state]
        parts.append(f'<rect class="box" x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="8"/>')
        parts.append(_text(x + WIDTH / 2, y + 24, state.name, ' font-weight="700"'))
        for number, line in enumerate((", ".join(stays[:3]), ", ".join(stays[3:]))):
            parts.append(_text(x + WIDTH / 2, y + 46 + 18 * number, line, ' font-size="12"'))
    return "\n".join([*parts, "</svg>", ""])


def _arrow(path: str, more: str) -> str:
    return f'<path class="arrow" d="{path}" marker-end="url(#tip)"{more}/>'


def _text(x: float, y: float, text: str, more: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="middle"{more}>{escape(text)}</text>' if text else ""


def table() -> str:
    """The whole table, in Markdown: what each call does in each state."""
    rows = [f"| | {' | '.join(state.name for state in State)} |", f"|---|{'---|' * len(State)}"]
    for action in Action:
        cells = [_cell(state, action) for state in State]
        rows.append(f"| `{action.value}` | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _cell(state: State, action: Action) -> str:
    try:
        after = step(state, action)
    except SessionStateError as error:
        return f"`{type(error).__name__}`"
    return "stays" if after is state else f"→ {after.name}"


if __name__ == "__main__":
    PICTURE.write_text(picture(), "utf-8")
    print(table())
