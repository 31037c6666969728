"""An App that uses all there is of a request, and what must hold after each one."""

from __future__ import annotations

from collections.abc import Sequence

import trio
from werkzeug.datastructures import FileStorage

from tests.integration._serving import at_rest, count_tasks
from tests.web_peer import Peer
from trio_session import SessionManager
from trio_session.web import App, Request

__all__ = ["Target"]


class Target:
    """An App in this process, asked by messages."""

    def __init__(self, manager: SessionManager) -> None:
        self.manager = manager
        self.files: list[FileStorage] = []
        self.fields: list[tuple[str, str]] = []
        self.app = App(manager=manager)
        self.app.max_content_length = 60_000
        self.app.max_form_memory_size = 2_000
        self.app.max_form_parts = 10
        self.app.route("/", methods=["GET", "POST"])(self._index)
        self.app.get("/folder/")(self._index)
        self._tasks = count_tasks()

    async def _index(self, request: Request) -> dict[str, object]:
        self.files, self.fields = [], []
        for what in (request.cookies, request.args, request.url, request.full_path, request.headers, repr(request)):
            assert what is not None
        form, files = await request.form, await request.files
        self.fields = list(form.items(multi=True))
        self.files = [storage for _, storage in files.items(multi=True)]
        if request.method == "POST":
            await request.session.increment("n")
        return {"n": request.session.get("n"), "args": len(request.args)}

    async def ask(
        self,
        path: str = "/",
        *,
        method: str = "GET",
        query: bytes = b"",
        headers: Sequence[tuple[bytes, bytes]] = (),
        body: Sequence[bytes] = (b"",),
    ) -> Peer:
        """Send one request; whatever it is, nothing is left of it."""
        peer = Peer(self.app, path, method=method, body=None)
        peer.scope["query_string"] = query
        peer.scope["headers"] = [(b"host", b"localhost"), *headers]
        for chunk in body:
            peer.say_body(chunk, more=True)
        peer.say_body(b"")
        await peer.run()
        assert peer.status < 500
        for name, value in peer.sent[0]["headers"]:
            assert not set(name + value) & set(b"\r\n\0")
        assert count_tasks() == self._tasks
        assert at_rest(self.manager)
        assert all(storage.stream.closed for storage in self.files)
        return peer

    async def settle(self) -> None:
        """Count the tasks that are there by themselves."""
        await trio.testing.wait_all_tasks_blocked()
        self._tasks = count_tasks()
