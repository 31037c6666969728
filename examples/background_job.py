"""Sessions without a web server: workers that book into one account, and none of them overwrites another.

Start it with `python background_job.py`.
"""

import trio

from trio_session import SessionManager, open_session_manager

WORKERS, BOOKINGS = 8, 25


async def work(manager: SessionManager, id: str) -> None:
    """Book into the account, one thing at a time."""
    session = manager.session(id)  # every worker has a Session of its own, as every request has
    for _ in range(BOOKINGS):
        async with session.locked() as account:  # waits its turn, and reads what the last worker wrote
            balance = account["balance"]
            await trio.sleep(0.001)  # without the lock, all the others would read the same balance now
            account["balance"] = balance + 1


async def main() -> None:
    """Open an account, let the workers loose on it, and see what they made of it."""
    # Configured as a web application is, by SESSION_DRIVER and the others; the local driver's sessions stay in here.
    async with open_session_manager() as manager:
        session = manager.session()
        await session.put("balance", 0)  # the first commit makes the id
        assert session.id is not None
        async with trio.open_nursery() as nursery:
            for _ in range(WORKERS):
                nursery.start_soon(work, manager, session.id)
        await session.read()  # a Session shows what it read last
        print(f"{WORKERS} workers, {BOOKINGS} bookings each: the balance is {session['balance']}")
        await session.clear()


if __name__ == "__main__":
    trio.run(main)
