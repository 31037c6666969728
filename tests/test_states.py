"""The table of the life cycle, without a Session."""

from __future__ import annotations

import runpy
from itertools import product

import pytest

from trio_session import SessionFinishedError, SessionNotLockedError, SessionNotReadError, SessionStateError
from trio_session._states import TRANSITIONS, Action, State, step

from .test_docs import ROOT


@pytest.mark.parametrize(("state", "action"), list(product(State, Action)))
def test_what_the_table_does_not_have_is_refused(state: State, action: Action) -> None:
    """Every pair either leads somewhere, or to one sentence that names the action and the fix."""
    if (state, action) in TRANSITIONS:
        assert step(state, action) is TRANSITIONS[state, action]
        return
    with pytest.raises(SessionStateError, match=r"\(\)") as caught:
        step(state, action)
    assert str(caught.value).startswith(action.value)


def test_who_is_told_what() -> None:
    """The kind of error follows from what is missing."""
    with pytest.raises(SessionNotReadError):
        step(State.UNREAD, Action.GET)
    with pytest.raises(SessionNotLockedError):
        step(State.READ, Action.SET)
    with pytest.raises(SessionFinishedError):
        step(State.FINISHED, Action.LOCK)


def test_every_state_can_be_reached_and_left() -> None:
    """But for FINISHED, which nobody leaves, and those that only the world brings about."""
    reached = set(TRANSITIONS.values())
    assert reached == {State.READ, State.LOCKED, State.LOST, State.FINISHED}
    left = {state for (state, _), after in TRANSITIONS.items() if after is not state}
    assert left == {State.UNREAD, State.READ, State.LOCKED, State.LOST}


def test_the_docs_show_the_table() -> None:
    """The picture and the table of docs/explanation/architecture.md are the code's; if not, run docs/_life_cycle.py."""
    made = runpy.run_path(str(ROOT / "docs" / "_life_cycle.py"))
    assert made["table"]() in (ROOT / "docs" / "explanation" / "architecture.md").read_text("utf-8")
    assert made["PICTURE"].read_text("utf-8") == made["picture"]()
