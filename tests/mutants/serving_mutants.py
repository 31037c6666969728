"""Mutants of the server: its connections, its end, its workers."""

from __future__ import annotations

from ._runner import Mutant

SERVING_MUTANTS: tuple[Mutant, ...] = (
    # -- connections
    Mutant(
        name="what a client breaks takes down the server",
        file="trio_session/serving/_connection.py",
        old="        except* Exception as errors:",
        new="        except* ZeroDivisionError as errors:",
        tests=("tests/integration/test_traps.py::test_a_broken_connection_takes_down_nothing_but_itself",),
    ),
    Mutant(
        name="an application that reads no body is waited for",
        file="trio_session/serving/_tasks.py",
        old="        while len(self._messages) >= self._room and not self._over:",
        new="        while len(self._messages) >= self._room:",
        tests=("tests/integration/test_traps.py::test_a_body_that_nobody_reads_leaves_no_task",),
    ),
    Mutant(
        name="an upload that was refused is not told to stop",
        file="trio_session/serving/_protocols.py",
        old="                self.connection.reset_stream(id, ErrorCodes.NO_ERROR)",
        new="                pass",
        tests=("tests/integration/test_traps.py::test_an_early_answer_spares_the_other_streams",),
    ),
    Mutant(
        name="one upload uses up the window of all",
        file="trio_session/serving/_protocols.py",
        old="window * (self.config.h2_max_concurrent_streams - 1)",
        new="1",
        tests=("tests/integration/test_traps.py::test_an_upload_that_is_not_read_yet_leaves_room_for_others",),
    ),
    Mutant(
        name="an HTTP/2 connection is cut after so many requests",
        file="trio_session/serving/_protocols.py",
        old="                    self._requests, self.keep_alive_requests = self._requests + self.keep_alive_requests, 0\n",
        new="",
        tests=("tests/integration/test_traps.py::test_a_connection_that_was_used_a_lot_loses_no_request",),
    ),
    Mutant(
        name="an answer that breaks off looks complete, or never ends",
        file="trio_session/serving/_protocols.py",
        old="        if buffer is None or buffer.complete:",
        new="        if True:",
        tests=("tests/integration/test_broken_answers.py::test_an_answer_that_fails_is_reset",),
    ),
    Mutant(
        name="an application that waits for a client that has gone is forgotten",
        file="trio_session/serving/_protocols.py",
        old="        await buffer.close()  #",
        new="        #",
        tests=("tests/integration/test_broken_answers.py::test_a_client_that_takes_nothing_and_goes",),
    ),
    # -- the end
    Mutant(
        name="who has connected already is turned away",
        file="trio_session/serving/_server.py",
        old="                    await _until_nobody_knocks([*sockets.secure_sockets, *sockets.insecure_sockets])\n",
        new="",
        tests=("tests/integration/test_stopping.py::test_connections_that_wait_to_be_accepted_are_served",),
    ),
    Mutant(
        name="a request that was on its way is not waited for",
        file="trio_session/serving/_connection.py",
        old="(min(_GRACE, patience) if self._leaving else patience)",
        new="(0.0 if self._leaving else patience)",
        tests=("tests/integration/test_stopping.py::test_a_request_that_was_on_its_way_is_answered",),
    ),
    Mutant(
        name="a request whose time is up gets no answer",
        file="trio_session/serving/_application.py",
        old="            if not started and trio.current_effective_deadline() == -inf:",
        new="            if False:",
        tests=("tests/integration/test_stopping.py::test_a_request_without_end_is_told_so",),
    ),
    Mutant(
        name="no response says that it is the last",
        file="trio_session/serving/_application.py",
        old="                    message = _with_close(message)",
        new="                    pass",
        tests=("tests/integration/test_stopping.py::test_a_response_says_that_it_is_the_last",),
    ),
    Mutant(
        name="a client that reads nothing keeps the server",
        file="trio_session/serving/_connection.py",
        old="        for scope in self._senders:\n            scope.deadline = self._may_send_until",
        new="        pass",
        tests=("tests/integration/test_stopping.py::test_a_client_that_reads_nothing_cannot_keep_the_server",),
    ),
    Mutant(
        name="idle HTTP/2 connections end without a word",
        file="trio_session/serving/_protocols.py",
        old="            self._protocol.connection.close_connection()\n",
        new="",
        tests=("tests/integration/test_stopping.py::test_an_idle_connection_of_http2_is_told_goodbye",),
    ),
    Mutant(
        name="busy HTTP/2 connections are never asked to leave",
        file="trio_session/serving/_server.py",
        old="                nursery.start_soon(connection.hurry)",
        new="                pass",
        tests=("tests/integration/test_stopping.py::test_a_busy_connection_of_http2_is_asked_to_leave",),
    ),
    Mutant(
        name="WebSockets are not told that the server stops",
        file="trio_session/serving/_application.py",
        old="            nursery.start_soon(socket.close_when, self._stopping, self._patience)\n",
        new="",
        tests=("tests/integration/test_stopping.py::test_websockets_are_told_that_the_server_restarts",),
    ),
    Mutant(
        name="a WebSocket is closed before its message was replied to",
        file="trio_session/serving/_application.py",
        old="            await self._at_rest.wait()\n        if",
        new="            pass\n        if",
        tests=("tests/integration/test_stopping.py::test_the_last_message_of_a_websocket_is_replied_to",),
    ),
    Mutant(
        name="a WebSocket whose handler does not listen is never closed",
        file="trio_session/serving/_application.py",
        old="        with trio.move_on_after(patience):",
        new="        with trio.move_on_after(inf):",
        tests=(
            "tests/integration/test_stopping.py::test_a_websocket_whose_handler_does_not_listen_is_closed_half_way",
        ),
    ),
    # -- the lifespan
    Mutant(
        name="an application that could not start is served",
        file="trio_session/serving/_lifespan.py",
        old="        if self._failure is not None:\n            raise StartupError(self._failure)\n",
        new="",
        tests=("tests/integration/test_stopping.py::test_a_start_that_fails_is_no_start",),
    ),
    Mutant(
        name="an application that broke down is served on",
        file="trio_session/serving/_lifespan.py",
        old="            self.broken.set()",
        new="            pass",
        tests=("tests/integration/test_stopping.py::test_a_lifespan_that_breaks_down_stops_the_server",),
    ),
    Mutant(
        name="a Hypercorn that nobody has looked at is taken apart",
        file="trio_session/serving/_server.py",
        old='    if version("hypercorn") not in CHECKED or sockets.quic_sockets:',
        new="    if sockets.quic_sockets:",
        tests=("tests/test_serving.py::test_a_hypercorn_that_is_not_known",),
    ),
    Mutant(
        name="a port is shared with strangers",
        file="trio_session/serving/_server.py",
        old="    alone = copy.copy(config)\n    alone.workers = 1\n",
        new="    alone = copy.copy(config)\n",
        tests=("tests/test_serving.py::test_addresses_that_cannot_be_used",),
    ),
    Mutant(
        name="local sessions are shared out among workers",
        file="trio_session/_middleware.py",
        old="            if confinement is not None and scope.get(WORKERS, 1) > 1:",
        new="            if False:",
        tests=("tests/integration/test_workers.py::test_sessions_of_one_process_are_not_shared_out",),
    ),
    # -- workers
    Mutant(
        name="a worker that died is replaced in silence",
        file="trio_session/serving/_processes.py",
        old="        if code:\n            name",
        new="        if False:\n            name",
        tests=("tests/integration/test_workers.py::test_a_worker_that_dies_is_a_failure",),
    ),
    Mutant(
        name="a worker outlives whoever watches over it",
        file="trio_session/serving/_worker.py",
        old="                ending.at_once()\n    ending.gracefully()",
        new="                ending.at_once()",
        tests=("tests/integration/test_workers.py::test_workers_do_not_outlive_their_parent",),
    ),
    Mutant(
        name="the settings that workers get have a logger",
        file="trio_session/serving/_processes.py",
        old="        self._log = copy.copy(orders.config).log",
        new="        self._log = orders.config.log",
        tests=("tests/integration/test_workers.py::test_workers_are_replaced",),
    ),
    Mutant(
        name="a module that fails to import something is not there",
        file="trio_session/serving/_loading.py",
        old='        if missing is None or not f"{name}.".startswith(f"{missing}."):',
        new="        if missing is None:",
        tests=("tests/test_loading.py::test_code_that_fails",),
    ),
    Mutant(
        name="a class is served",
        file="trio_session/serving/_loading.py",
        old="return _takes(app, _ASGI_ARGUMENTS) and not (isclass(app) and is_asgi(app))",
        new="return True",
        tests=("tests/test_loading.py::test_what_leads_to_none",),
    ),
)
