"""Mutants of the App, and of sessions in WebSockets."""

from __future__ import annotations

from ._runner import Mutant

WEB_MUTANTS: tuple[Mutant, ...] = (
    # -- WebSockets
    Mutant(
        name="pages of other sites may open WebSockets",
        file="trio_session/web/_websocket.py",
        old='        if not is_allowed(origin, match.route.origins, secure=ws.is_secure, host=ws.headers.get("Host")):',
        new="        if False:",
        tests=("tests/test_web_origins.py::test_pages_of_other_sites_are_refused",),
    ),
    Mutant(
        name="a page without TLS is ours",
        file="trio_session/web/_origins.py",
        old='page is None or host is None or (secure and page.scheme != "https")',
        new="page is None or host is None",
        tests=("tests/test_web_origins.py::test_pages_of_other_sites_are_refused",),
    ),
    Mutant(
        name="of two origins the first one counts",
        file="trio_session/web/_origins.py",
        old="    if len(origin) > 1:\n        return False\n",
        new="",
        tests=("tests/test_web_origins.py::test_two_origins_are_none",),
    ),
    Mutant(
        name="a handler goes on after its peer has gone",
        file="trio_session/web/_inbox.py",
        old="            handling.deadline = trio.current_time() + _FAREWELL_TIME\n        else:\n            handling.cancel()",
        new="            handling.deadline = trio.current_time() + _FAREWELL_TIME",
        tests=("tests/test_web_websocket_ends.py::test_a_busy_handler_is_cancelled_when_the_peer_goes",),
    ),
    Mutant(
        name="a peer can fill the memory",
        file="trio_session/web/_inbox.py",
        old="self._is_over or (len(self._messages) < _AHEAD_MESSAGES and self._bytes < _AHEAD_BYTES)",
        new="self._is_over or len(self._messages) < _AHEAD_MESSAGES",
        tests=("tests/test_web_websocket_ends.py::test_reading_ahead_is_bounded",),
    ),
    Mutant(
        name="what a peer did wrong is called our failure",
        file="trio_session/web/_websocket.py",
        old="_POLICY if is_theirs else _INTERNAL",
        new="_INTERNAL",
        tests=("tests/test_web_websocket.py::test_json_that_is_none_is_the_peers_fault",),
    ),
    Mutant(
        name="a WebSocket that is accepted gets no cookie",
        file="trio_session/_middleware.py",
        old='            if kind in {"websocket.accept", "websocket.http.response.start"}:',
        new='            if kind == "websocket.http.response.start":',
        tests=("tests/test_middleware.py::test_a_websocket_gets_its_cookie_with_the_acceptance",),
    ),
    Mutant(
        name="a refusal of a WebSocket loses its cookies",
        file="trio_session/_middleware.py",
        old='            if kind in {"websocket.accept", "websocket.http.response.start"}:',
        new='            if kind == "websocket.accept":',
        tests=("tests/test_websocket_sessions.py::test_a_denial_with_a_status_keeps_its_cookies",),
    ),
    Mutant(
        name="nobody is told of a lock around receive()",
        file="trio_session/_middleware.py",
        old="            session._note_receiving()\n",
        new="",
        tests=("tests/test_websocket_sessions.py::test_a_block_around_receive",),
    ),
    Mutant(
        name="a WebSocket that ends keeps its lock",
        file="trio_session/_middleware.py",
        old='                await send({"type": "websocket.close"})  # the server makes a 403 of it\n        finally:\n            session._finish()',
        new='                await send({"type": "websocket.close"})\n        finally:\n            pass',
        tests=("tests/test_websocket_sessions.py::test_a_lock_that_is_left_behind",),
    ),
    # -- requests
    Mutant(
        name="a handler goes on after its client has hung up",
        file="trio_session/web/_inbox.py",
        old="            self._last_words.deadline = trio.current_time() + _FAREWELL_TIME\n        else:\n            handling.cancel()",
        new="            self._last_words.deadline = trio.current_time() + _FAREWELL_TIME",
        tests=("tests/test_web_hang_up.py::test_hanging_up_cancels_the_handler",),
    ),
    Mutant(
        name="sessions are read for paths that there are not",
        file="trio_session/web/_app.py",
        old="autoload=lambda scope: match_of(scope).autoload,",
        new="autoload=True,",
        tests=("tests/test_web_sessions.py::test_autoload_asks_the_route_first",),
    ),
    Mutant(
        name="bodies have no limit",
        file="trio_session/web/_request.py",
        old="if self.max_content_length is not None and length > self.max_content_length:",
        new="if False:",
        tests=("tests/test_web_requests.py::test_bodies_have_a_limit",),
    ),
    Mutant(
        name="a client is told to repeat what may have been written",
        file="trio_session/web/_failures.py",
        old="            wrapped = ServiceUnavailable()\n",
        new="            wrapped = ServiceUnavailable(retry_after=_RETRY_AFTER)\n",
        tests=("tests/test_web_errors.py::test_every_error_has_its_status",),
    ),
    Mutant(
        name="background tasks are left alone at the end",
        file="trio_session/web/_serving.py",
        old="        self.nursery.cancel_scope.cancel()\n",
        new="        pass\n",
        tests=("tests/test_web_serving.py::test_background_tasks",),
    ),
    Mutant(
        name="an App that cannot start is started",
        file="trio_session/web/_serving.py",
        old='await send({"type": f"lifespan.{phase}.failed", "message"',
        new='await send({"type": f"lifespan.{phase}.complete", "message"',
        tests=("tests/test_web_serving.py::test_a_failing_start_is_said_and_not_raised",),
    ),
)
