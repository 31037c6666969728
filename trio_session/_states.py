"""The life cycle of a Session, as one table.

Rule: whatever is legal is written here; a missing entry is the error. States are as the calling task sees them: while
one task of a request holds the lock (LOCKED for it), the others see READ, the last committed data.
"""

from __future__ import annotations

from enum import Enum, auto

from ._errors import SessionFinishedError, SessionNotLockedError, SessionNotReadError, SessionStateError

__all__ = ["TRANSITIONS", "Action", "State", "step"]


class State(Enum):
    __hash__ = object.__hash__  # Enum's own is written in Python, and each step looks two of these up

    UNREAD = auto()  # nothing is known about the data yet
    READ = auto()  # the last committed data is known
    LOCKED = auto()  # this task holds the lock
    LOST = auto()  # this task held the lock and lost it
    FINISHED = auto()  # the request, or the manager, is over


class Action(Enum):
    __hash__ = object.__hash__

    GET = "get()"
    READ = "read()"
    SET = "set()"
    LOCK = "lock()"
    REGENERATE = "regenerate()"
    COMMIT = "commit()"
    ROLLBACK = "rollback()"


TRANSITIONS: dict[tuple[State, Action], State] = {
    (State.UNREAD, Action.READ): State.READ,
    (State.UNREAD, Action.LOCK): State.LOCKED,
    (State.READ, Action.GET): State.READ,
    (State.READ, Action.READ): State.READ,
    (State.READ, Action.LOCK): State.LOCKED,
    (State.LOCKED, Action.GET): State.LOCKED,
    (State.LOCKED, Action.READ): State.LOCKED,
    (State.LOCKED, Action.SET): State.LOCKED,
    (State.LOCKED, Action.REGENERATE): State.LOCKED,
    (State.LOCKED, Action.LOCK): State.LOCKED,  # one level deeper
    (State.LOCKED, Action.COMMIT): State.READ,  # the outermost level
    (State.LOCKED, Action.ROLLBACK): State.READ,  # the outermost level
    (State.LOST, Action.GET): State.LOST,
    (State.LOST, Action.READ): State.LOST,
    (State.LOST, Action.SET): State.LOST,  # harmless: it can never be written
    (State.LOST, Action.REGENERATE): State.LOST,
    (State.LOST, Action.LOCK): State.LOST,  # raises LockLostError
    (State.LOST, Action.COMMIT): State.READ,  # raises LockLostError
    (State.LOST, Action.ROLLBACK): State.READ,
    (State.FINISHED, Action.GET): State.FINISHED,
}

_FIX_LOCK = "wrap the change in `async with session.locked() as data:`"


def step(state: State, action: Action) -> State:
    """The state that `action` leads to.

    Raises:
        SessionStateError: the action is illegal in `state`; the kind and the text say what to do instead.
    """
    try:
        return TRANSITIONS[state, action]
    except KeyError:
        raise _refusal(state, action) from None


def _refusal(state: State, action: Action) -> SessionStateError:
    if state is State.FINISHED:
        return SessionFinishedError(
            f"{action.value} came after the session's request (or manager) was over; "
            "a task that outlives its request uses `manager.session(id)` of its own"
        )
    if action is Action.GET:
        return SessionNotReadError(
            f"{action.value} needs data, but the session was not read: `await session.read()` first, or use autoload"
        )
    return SessionNotLockedError(f"{action.value} in a task that does not hold the session's lock; {_FIX_LOCK}")
