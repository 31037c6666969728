"""SessionTrainer: what it prepares is there, and what it counts is right."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_session import SessionConfig, SessionMiddleware
from trio_session.testing import SessionTrainer, open_test_client
from trio_session.web import App, Request


async def test_given_sessions_are_there() -> None:
    """Under the very id that was given; a second time replaces the data."""
    async with SessionTrainer() as trainer:
        await trainer.given_session("ada", {"n": 1, "m": 2})
        assert dict(await trainer.manager.session("ada").read()) == {"n": 1, "m": 2}
        await trainer.given_session("ada", {"n": 3})
        assert dict(await trainer.manager.session("ada").read()) == {"n": 3}


async def test_new_sessions_get_short_ids() -> None:
    """a, b, …, z, aa, and none that was given."""
    async with SessionTrainer() as trainer:
        await trainer.given_session("b", {})
        ids: list[str | None] = []
        for _ in range(27):
            session = trainer.manager.session()
            await session.put("n", 1)
            ids.append(session.id)
        assert ids[:3] == ["a", "c", "d"]
        assert ids[-3:] == ["z", "aa", "ab"]


async def test_it_counts_reads_writes_and_locks() -> None:
    """Each by itself, from the last given_session on."""
    async with SessionTrainer() as trainer:
        await trainer.given_session("a", {"n": 1})
        assert (trainer.read_count("a"), trainer.write_count("a"), trainer.lock_count("a")) == (0, 0, 0)
        session = trainer.manager.session("a")
        await session.read()
        assert (trainer.read_count("a"), trainer.write_count("a"), trainer.lock_count("a")) == (1, 0, 0)
        await session.increment("n")
        assert (trainer.read_count("a"), trainer.write_count("a"), trainer.lock_count("a")) == (2, 1, 1)
        async with session.locked():
            pass
        assert (trainer.read_count("a"), trainer.write_count("a"), trainer.lock_count("a")) == (3, 1, 2)
        await session.refresh()
        assert session.id == "b"
        assert (trainer.write_count("a"), trainer.write_count("b")) == (2, 1)
        await session.clear()
        assert trainer.write_count("b") == 2
        await trainer.given_session("c", {})
        assert trainer.read_count("never heard of") == 0


async def test_it_tells_which_keys_came_and_went() -> None:
    """Compared with what was given, whatever id the session has now."""
    async with SessionTrainer() as trainer:
        await trainer.given_session("a", {"n": 1, "m": 2})
        session = trainer.manager.session("a")
        async with session.locked() as data:
            del data["m"]
            data["cart"] = ["tea"]
        assert trainer.added_keys("a") == {"cart"}
        assert trainer.removed_keys("a") == {"m"}
        await session.refresh()
        assert trainer.added_keys("b") == {"n", "cart"}
        assert trainer.removed_keys("a") == {"n", "m"}
        await session.clear()
        assert trainer.added_keys("b") == set()


async def test_a_stranger_unlocks_nothing() -> None:
    """A release that comes late, from somebody who holds the lock no longer, is not taken for the holder's."""
    async with SessionTrainer() as trainer:
        await trainer.given_session("a", {"n": 1})
        async with trainer.manager.session("a").locked():
            trainer._store.release(trainer._ids.key("a"), "somebody else")
            assert trainer.is_locked("a")
        assert not trainer.is_locked("a")


async def test_it_knows_who_is_locked() -> None:
    """During a block, from one holder to the next, and not afterwards."""
    async with SessionTrainer() as trainer:
        await trainer.given_session("a", {"n": 1})
        assert not trainer.is_locked("a")
        async with trio.open_nursery() as nursery, trainer.manager.session("a").locked() as data:
            assert trainer.is_locked("a")
            data["n"] = 2
            nursery.start_soon(trainer.manager.session("a").increment, "n")
            await wait_all_tasks_blocked()
        assert trainer.lock_count("a") == 2
        assert not trainer.is_locked("a")
        with pytest.raises(ValueError, match="mine"):
            async with trainer.manager.session("a").locked():
                raise ValueError("mine")
        assert not trainer.is_locked("a")


async def test_locks_are_renewed_as_in_real_life(autojump_clock: trio.testing.MockClock) -> None:
    """A long block keeps its lock, under the trainer's configuration."""
    async with SessionTrainer(SessionConfig(lock_lease=1.0)) as trainer:
        await trainer.given_session("a", {"n": 1})
        async with trainer.manager.session("a").locked() as data:
            await trio.sleep(10)
            data["n"] = 2
        assert trainer.write_count("a") == 1


async def test_misuse_is_told() -> None:
    """A manager that is not open, and an id that could not be one."""
    trainer = SessionTrainer()
    with pytest.raises(RuntimeError, match="async with"):
        trainer.manager  # noqa: B018
    async with trainer:
        for id in ("", "x" * 49, "no spaces", "é"):
            with pytest.raises(ValueError, match="id"):
                await trainer.given_session(id, {})


async def test_an_application_under_training() -> None:
    """The manager goes to the App; a cookie with the given id is that session."""
    async with SessionTrainer() as trainer:
        await trainer.given_session("a", {"user": 7})
        app = App(manager=trainer.manager)

        @app.get("/")
        async def whoami(request: Request) -> dict[str, int]:
            return {"user": await request.session.increment("user", 0)}

        async with open_test_client(app) as client:
            client.cookies["trio_session"] = "a"
            assert (await client.get("/")).json() == {"user": 7}
        assert trainer.lock_count("a") == 1
        assert trainer.write_count("a") == 0
        assert isinstance(app.sessions, type(trainer.manager))
        assert SessionMiddleware(app, manager=trainer.manager).manager is trainer.manager
