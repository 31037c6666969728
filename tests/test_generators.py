"""Blocks inside async generators: no cancel scope where the generator may be dropped in the middle of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from trio_session import LockLostError, Session, SessionConfig, SessionManager, open_session_manager
from trio_session.web._streams import send_stream


@pytest.fixture
async def manager() -> AsyncIterator[SessionManager]:
    async with open_session_manager(SessionConfig(lock_hold_limit=10.0)) as manager:
        yield manager


def is_guarded(session: Session) -> bool:
    """Whether the loss of the lock would cancel something."""
    hold = session._mine()
    assert hold is not None
    return hold.lock.lease.guarded


@asynccontextmanager
async def wrapped(session: Session) -> AsyncIterator[dict[str, Any]]:
    async with session.locked() as data:
        yield data


async def in_a_coroutine(session: Session) -> bool:
    async with session.locked():
        return is_guarded(session)


async def in_a_context_manager(session: Session) -> bool:
    async with wrapped(session):
        return is_guarded(session)


async def in_an_exit_stack(session: Session) -> bool:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(wrapped(session))
        await stack.enter_async_context(session.locked())
        return is_guarded(session)


async def stream(session: Session) -> AsyncGenerator[bool, None]:
    async with session.locked() as data:
        data["n"] = 1
        yield is_guarded(session)
        yield is_guarded(session)


async def stream_through_a_context_manager(session: Session) -> AsyncGenerator[bool, None]:
    async with wrapped(session) as data:
        data["n"] = 1
        yield is_guarded(session)


async def stream_of_calls(session: Session) -> AsyncGenerator[bool, None]:
    yield await in_a_coroutine(session)
    await session.put("n", 1)


async def first_of(generator: AsyncGenerator[bool, None]) -> bool:
    async with aclosing(generator):
        return await anext(generator)


@pytest.mark.parametrize("use", [in_a_coroutine, in_a_context_manager, in_an_exit_stack])
async def test_blocks_are_cancelled_with_their_lock(
    manager: SessionManager, use: Callable[[Session], Awaitable[bool]]
) -> None:
    """Also through context managers made of generators: it is the block using them that counts."""
    assert await use(manager.session()) is True


async def test_blocks_in_generators_are_not(manager: SessionManager) -> None:
    """But for whole blocks inside of a call, which cannot be suspended half-way."""
    assert await first_of(stream(manager.session())) is False
    assert await first_of(stream_through_a_context_manager(manager.session())) is False
    assert await first_of(stream_of_calls(manager.session())) is True


async def test_streams_of_our_own_app_are_cancelled(manager: SessionManager) -> None:
    """The App throws whatever happens into the generator, and closes it."""
    seen: list[bool] = []

    async def chunks() -> AsyncGenerator[bytes, None]:
        session = manager.session()
        async with session.locked():
            seen.append(is_guarded(session))
            yield b""

    async def send(chunk: bytes) -> None:
        await trio.lowlevel.checkpoint()

    await send_stream(chunks(), send)
    assert seen == [True]


async def test_a_generator_that_is_dropped_corrupts_nothing(manager: SessionManager) -> None:
    """As a framework does whose client has gone: its own cancel scopes still nest, and the lock is given back."""
    session = manager.session()
    generator = stream(session)
    with trio.CancelScope():
        assert await anext(generator) is False
    session._finish()
    assert manager.statistics().locks_held == 0
    await generator.aclose()
    assert (await manager.session(session.id).read()).is_empty


async def test_a_loss_in_a_generator_is_told_at_the_commit(manager: SessionManager, autojump_clock: MockClock) -> None:
    """There is nothing to cancel, and nothing is written."""
    session = manager.session()
    generator = stream(session)
    await anext(generator)
    await trio.sleep(20)
    await anext(generator)
    with pytest.raises(LockLostError):
        await anext(generator)
    assert session.id is None
