"""`trio-session serve` as processes, beside `hypercorn -k trio`: several workers, their ends, and exit codes."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import final

import pytest
import trio

from tests.faults._harness import amount
from tests.redis_servers import free_port
from tests.test_cli import PATIENCE, Child, open_child

from ._clients import connect, fetch, read_answer, request_head

# Sessions live elsewhere, and need nothing here. Each worker writes down what becomes of it.
MODULE = """
import os
import time
from pathlib import Path

import trio

HERE = Path(__file__).parent


def note(word):
    with (HERE / "log").open("a") as log:
        log.write(f"{word} {os.getpid()}\\n")


if (HERE / "broken").exists():
    raise ValueError("broken module")


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        if (HERE / "refuse").exists():
            await send({"type": "lifespan.startup.failed", "message": "no database"})
            return
        note("start")
        if (HERE / "slow").exists():
            await trio.sleep(60)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        note("end")
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["path"] == "/exit":
        os._exit(3)
    if scope["path"] == "/stuck":
        note("stuck")
        time.sleep(60)
    if scope["path"] in {"/slow", "/slower"}:
        note("slow")
        await trio.sleep(1 if scope["path"] == "/slow" else 2.5)
    body = f"{os.getpid()}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
"""

PLAIN = ("-m", "hypercorn", "-k", "trio")
OURS = ("-m", "trio_session.cli", "serve")
# Starts of servers, which a busy machine takes its time for.
pytestmark = pytest.mark.timeout(120)

# What Hypercorn alone does is looked at by `make faults`.
both = pytest.mark.parametrize("command", amount([OURS], [PLAIN, OURS]), ids=lambda command: command[-1])


@final
class Site:
    """A directory with the application, and what its workers have written down."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "module.py").write_text(MODULE)

    def noted(self, word: str) -> list[int]:
        """The process ids of those that have noted this word."""
        log = self.folder / "log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [int(line.split()[1]) for line in lines if line.startswith(f"{word} ")]

    async def until(self, condition: Callable[[], bool]) -> None:
        with trio.fail_after(PATIENCE):
            while not condition():
                await trio.sleep(0.01)

    @asynccontextmanager
    async def serve(self, command: tuple[str, ...], *, workers: int) -> AsyncIterator[tuple[Child, str]]:
        """Serve it; yields the process and the URL when all workers have started."""
        port = free_port()
        arguments = (*command, "-b", f"127.0.0.1:{port}", "-w", str(workers), "module:app")
        async with open_child(*arguments, folder=str(self.folder)) as child:
            url = f"http://127.0.0.1:{port}"
            # Hypercorn says no more than that; ours says when it has heard of each of them, too.
            ready = f"{workers} workers ready at " if command is OURS else ""
            await self.until(lambda: child.errors().count("Running on ") == workers and ready in child.errors())
            yield child, url
        await self.until(lambda: not any(map(is_alive, self.noted("start"))))  # nobody is left behind


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """The application in a directory of its own."""
    return Site(tmp_path)


def is_alive(pid: int) -> bool:
    """Not gone, and not only waiting for somebody who asks what became of it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@both
async def test_sigterm_ends_every_worker_in_order(command: tuple[str, ...], site: Site) -> None:
    """A slow request is answered although the other worker has long ended, and each lifespan ends."""
    async with site.serve(command, workers=2) as (child, url), await connect(url) as stream:
        # Of Hypercorn's other worker nobody knows how long it takes to end, and so to take this one with it.
        await stream.send_all(request_head("/slower" if command is PLAIN else "/slow"))
        await site.until(lambda: site.noted("slow") != [])
        child.send(signal.SIGTERM)
        if command is PLAIN:
            with suppress(trio.BrokenResourceError):
                assert not await stream.receive_some()
        else:
            assert (await read_answer(stream)).body == str(site.noted("slow")[0]).encode()
        assert await child.end() == 0
        assert (sorted(site.noted("end")) == sorted(site.noted("start"))) == (command is OURS)


async def test_a_second_signal_does_not_wait(site: Site) -> None:
    """Whoever sends it means it: requests that are under way are cut."""
    async with site.serve(OURS, workers=2) as (child, url), await connect(url) as stream:
        await stream.send_all(request_head("/slow"))
        await site.until(lambda: site.noted("slow") != [])
        child.send(signal.SIGINT)
        await trio.sleep(0.2)
        child.send(signal.SIGINT)
        assert await child.end() == 0
        with suppress(trio.BrokenResourceError):
            assert b"200" not in bytes(await stream.receive_some())[:20]


async def test_a_worker_that_does_not_end_is_killed(site: Site) -> None:
    """Nothing reaches a worker that is busy for ever; some seconds after the second signal it is over."""
    async with site.serve(OURS, workers=2) as (child, url), await connect(url) as stream:
        await stream.send_all(request_head("/stuck"))
        await site.until(lambda: site.noted("stuck") != [])
        child.send(signal.SIGTERM)
        await trio.sleep(0.2)
        child.send(signal.SIGTERM)
        assert await child.end() == 4
        assert child.errors().endswith(" died: killed by SIGKILL\n")


async def test_a_start_can_be_stopped(site: Site) -> None:
    """Nobody has to wait for workers that have not started yet."""
    (site.folder / "slow").touch()
    async with open_child(*OURS, "-b", "127.0.0.1:0", "-w", "2", "module:app", folder=str(site.folder)) as child:
        await site.until(lambda: site.noted("start") != [])
        assert await child.stop(signal.SIGTERM) == 0
        assert child.errors() == ""


async def test_a_worker_that_dies_is_a_failure(site: Site) -> None:
    """The others end in order, and the exit code tells whoever watches over the service to start it again."""
    async with site.serve(OURS, workers=2) as (child, url):
        async with await connect(url) as stream:
            await stream.send_all(request_head("/exit"))
            with suppress(trio.BrokenResourceError):
                assert not await stream.receive_some()
        assert await child.end() == 4
        assert len(site.noted("end")) == 1
        assert child.errors().endswith(" died: exit code 3\n")


@both
async def test_a_start_that_fails_is_a_failure(command: tuple[str, ...], site: Site) -> None:
    """The exit code says so, and one line says why; of several workers only the first one has tried."""
    (site.folder / "refuse").touch()
    options = ("-b", f"127.0.0.1:{free_port()}", "-w", "2", "module:app")
    async with open_child(*command, *options, folder=str(site.folder)) as child:
        code = await child.end()
        if command is OURS:
            assert code == 3
            assert child.errors() == "trio-session: the application could not start: no database\n"
        else:
            assert code == 0


@pytest.mark.parametrize(
    ("workers", "name", "reason"),
    [("1", "module:no", "there is no 'no' in {}/module.py"), ("2", "no:app", "there is no module 'no' in {}, ")],
)
async def test_an_application_that_is_not_there(workers: str, name: str, reason: str, site: Site) -> None:
    """A name that leads nowhere is one line."""
    async with open_child(*OURS, "-b", "127.0.0.1:0", "-w", workers, name, folder=str(site.folder)) as child:
        assert await child.end() == 3
        assert child.errors().count("\n") == 1
        assert f"could not start: {reason.format(site.folder.resolve())}" in child.errors()


async def test_a_module_that_cannot_be_imported(site: Site) -> None:
    """Its traceback is shown, once."""
    (site.folder / "broken").touch()
    async with open_child(*OURS, "-b", "127.0.0.1:0", "-w", "2", "module:app", folder=str(site.folder)) as child:
        assert await child.end() == 3
        assert child.errors().count("Traceback") == 1
        assert child.errors().endswith("could not start: ValueError: broken module\n")


async def test_workers_do_not_outlive_their_parent(site: Site) -> None:
    """However the supervising process dies, its workers end, and in order."""
    async with site.serve(OURS, workers=2) as (child, _):
        child.send(signal.SIGKILL)
        assert await child.end() == -signal.SIGKILL
        await site.until(lambda: sorted(site.noted("end")) == sorted(site.noted("start")))


async def test_workers_are_replaced(site: Site) -> None:
    """One that got a SIGTERM of its own; all at a SIGHUP, but none while the new application cannot start."""
    async with site.serve(OURS, workers=2) as (child, url):
        gone = site.noted("start")[0]
        os.kill(gone, signal.SIGTERM)
        await site.until(lambda: child.errors().count("Running on ") == 3)
        assert site.noted("end") == [gone]

        assert child.errors().count(f"[INFO] 2 workers ready at {url}\n") == 1

        old = {*site.noted("start")} - {gone}
        child.send(signal.SIGHUP)
        answered = 0
        while len(site.noted("end")) < 3:
            answered += (await fetch(url)).status == 200  # nobody is turned away meanwhile
        assert answered > 0
        assert {*site.noted("end")} == old | {gone}
        new = {*site.noted("start")} - old - {gone}
        assert int((await fetch(url)).body) in new

        (site.folder / "refuse").touch()
        child.send(signal.SIGHUP)
        await site.until(lambda: "A new worker cannot start: no database" in child.errors())
        assert int((await fetch(url)).body) in new

        (site.folder / "refuse").unlink()
        child.send(signal.SIGHUP)
        await site.until(lambda: {*site.noted("end")} == old | {gone} | new)
        assert int((await fetch(url)).body) not in new
        assert await child.stop(signal.SIGTERM) == 0
        assert sorted(site.noted("end")) == sorted(site.noted("start"))


async def test_sessions_of_one_process_are_not_shared_out(tmp_path: Path) -> None:
    """Several workers with the local driver would lose sessions: that is refused, with the reason and the remedy.

    With Redis they are served: see the fault tests.
    """
    (tmp_path / "module.py").write_text("from trio_session.web import App\napp = App()\n")
    environment = {"SESSION_DRIVER": "local"}
    arguments = (*OURS, "-b", "127.0.0.1:0", "-w", "2", "module:app")
    async with open_child(*arguments, folder=str(tmp_path), environment=environment) as child:
        assert await child.end() == 3
        assert child.errors() == (
            "trio-session: the application could not start: 2 workers, but sessions live in this process only: "
            "serve it with one (`-w 1`), or set SESSION_DRIVER=redis\n"
        )
