"""Fault 19: sessions that end, or get a new id, while others use them."""

from __future__ import annotations

from collections import Counter

import trio

from tests.redis_servers import RedisServer, redis_server
from trio_session import Session, SessionEndedError

from ._harness import PREFIX, amount, make_sessions, manager_on


async def test_a_login_while_others_use_the_old_id() -> None:
    """After a login exactly one id lives; requests with the old one fail or came before, and none sets a cookie."""
    with redis_server() as server:
        async with manager_on(server) as one, manager_on(server) as two, manager_on(server) as three:
            for _ in range(amount(20, 1000)):
                ((_, id),) = await make_sessions(one, 1)
                outcomes: Counter[str] = Counter()
                login = one.session(id)
                others = [manager.session(id) for manager in (one, two, three) for _ in range(7)]

                async def use(session: Session, outcomes: Counter[str] = outcomes) -> None:
                    try:
                        await session.increment("count")
                        outcomes["ok"] += 1
                    except SessionEndedError as error:
                        outcomes[error.reason] += 1

                async with trio.open_nursery() as nursery:
                    for session in others[:10]:
                        nursery.start_soon(use, session)
                    nursery.start_soon(login.refresh)
                    for session in others[10:]:
                        nursery.start_soon(use, session)
                assert login.id not in {id, None}
                assert (await two.session(login.id).read())["count"] == outcomes["ok"]
                assert (await two.session(id).read()).is_empty
                assert outcomes["ok"] + outcomes["replaced"] == len(others)
                assert all(session.id in {id, None} for session in others)
                assert living(server) == 1
                await one.session(login.id).clear()


async def test_a_logout_while_others_wait() -> None:
    """After a logout the session is gone for everybody, whatever they were about to write."""
    with redis_server() as server:
        async with manager_on(server) as one, manager_on(server) as two:
            for _ in range(amount(20, 1000)):
                ((_, id),) = await make_sessions(one, 1)
                ends: set[str] = set()

                async def use(session: Session, ends: set[str] = ends) -> None:
                    try:
                        await session.increment("count")
                    except SessionEndedError as error:
                        ends.add(error.reason)

                async with trio.open_nursery() as nursery:
                    sessions = [manager.session(id) for manager in (one, two) for _ in range(10)]
                    for session in sessions[::2]:
                        nursery.start_soon(use, session)
                    logout = one.session(id)
                    nursery.start_soon(logout.clear)
                    for session in sessions[1::2]:
                        nursery.start_soon(use, session)
                assert ends <= {"destroyed"}
                assert living(server) == 0
                assert logout.id is None
                assert (await two.session(id).read()).is_empty


def living(server: RedisServer) -> int:
    """How many records the server has, tombstones not counted."""
    with server.client() as client:
        records = [key for key in client.scan_iter(f"{PREFIX}:*", _type="string") if not str(key).endswith(":l'")]
        return sum(str(client.getrange(key, 0, 3)) == "b'ts1='" for key in records)
