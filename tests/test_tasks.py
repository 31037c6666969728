"""Service tasks that outlive their body, and exceptions that come out bare."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from trio_session._tasks import bare_exceptions, open_service_nursery


async def test_a_lone_exception_comes_out_as_itself() -> None:
    """Its cause and context are as they were, with no trace of the nursery's group."""
    error, cause = ValueError("mine"), KeyError("cause")
    with pytest.raises(ValueError, match="mine") as caught, bare_exceptions():
        async with trio.open_nursery():
            raise error from cause
    assert caught.value is error
    assert error.__cause__ is cause
    assert not isinstance(error.__context__, BaseExceptionGroup)


async def test_a_group_of_the_user_s_own_passes_unchanged() -> None:
    """Also one with a single member: it is the user's, not the nursery's."""
    with pytest.raises(ExceptionGroup) as caught, bare_exceptions():
        async with trio.open_nursery():
            raise ExceptionGroup("mine", [ValueError("one")])
    assert caught.value.message == "mine"


async def test_several_exceptions_stay_a_group() -> None:
    """None of them may be dropped."""

    async def fail() -> None:
        raise KeyError("child")

    with pytest.raises(ExceptionGroup) as caught, bare_exceptions():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            raise ValueError("body")
    assert {type(error) for error in caught.value.exceptions} == {ValueError, KeyError}


async def test_service_tasks_outlive_a_cancelled_body(autojump_clock: MockClock) -> None:
    """Clean-up of a cancelled body can still be served; then the service ends, without a word."""
    log: list[str] = []

    async def service() -> None:
        try:
            while True:
                await trio.sleep(1)
                log.append("served")
        finally:
            log.append("ended")

    with trio.move_on_after(1.5) as scope:
        async with open_service_nursery() as start:
            start(service)
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(2)
                log.append("cleaned up")
    assert scope.cancelled_caught
    assert log == ["served", "served", "served", "cleaned up", "ended"]


async def test_a_service_that_breaks_takes_the_body_down() -> None:
    """A bug in a service is not swallowed: its exception comes out, bare."""

    async def service() -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        async with open_service_nursery() as start:
            start(service)
            await trio.sleep_forever()


async def test_a_service_started_at_the_end_is_ended_too() -> None:
    """Even one that has not taken its first step when the body is left."""
    async with open_service_nursery() as start:
        start(trio.sleep_forever)
