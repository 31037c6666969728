"""From exceptions to answers: the table of session errors, error handlers, and the unforeseen."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from werkzeug.exceptions import InternalServerError, NotFound

from trio_session import _errors as errors
from trio_session.web import App, HTTPException, Request, Response, WebSocket, abort

from .web_peer import Peer, ask


@pytest.fixture
def app() -> App:
    return App(sessions=False)


def raising(app: App, error: BaseException, path: str = "/") -> None:
    """Register a handler that raises."""

    @app.get(path)
    async def fail(request: Request) -> str:
        raise error


@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [
        (errors.StorageUnavailableError("no answer from 192.0.2.7"), 503, "1"),
        (errors.LockTimeoutError(10), 503, "1"),
        (errors.LockLostError(), 503, "1"),
        (errors.SessionBusyError(256), 503, "1"),
        (errors.CommitUnknownError(), 503, None),
        (errors.CommittedNotReplicatedError(), 503, None),
        (errors.SessionEndedError("destroyed"), 409, None),
        (errors.SessionDataError("bad bytes"), 500, None),
        (errors.SessionTooLargeError(2, 1), 500, None),
        (errors.SessionNotReadError("read it"), 500, None),
        (trio.TooSlowError(), 500, None),
        (ValueError("secret"), 500, None),
        (ExceptionGroup("group", [ValueError("secret")]), 500, None),
    ],
)
async def test_every_error_has_its_status(
    app: App, error: Exception, status: int, retry_after: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """What passes is 503 with Retry-After, what may be done already 503 without; details are for the log."""
    raising(app, error)
    answer = await ask(app)
    assert answer.status == status
    assert answer.headers.get("retry-after") == retry_after
    assert not str(error) or str(error) not in answer.text
    (record,) = caplog.records
    assert record.name == "trio_session.web"
    mild = (
        "INFO" if isinstance(error, errors.StorageUnavailableError) else "WARNING"
    )  # the store has warned of it itself
    assert (record.levelname, bool(record.exc_info)) == (("ERROR", True) if status == 500 else (mild, False))


@pytest.mark.parametrize(
    ("error", "status", "logged"),
    [
        (NotFound(), 404, None),
        (errors.LockTimeoutError(10), 503, "WARNING"),
        (errors.StorageUnavailableError("no answer"), 503, "INFO"),
        (ValueError("secret"), 500, "ERROR"),
    ],
)
async def test_an_exception_alone_in_a_group_counts_as_itself(
    app: App, error: Exception, status: int, logged: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """A nursery wraps whatever comes out of it, also out of its own body; the log has the group with its traceback."""

    @app.get("/")
    async def handler(request: Request) -> str:
        async with trio.open_nursery(), trio.open_nursery():
            raise error

    assert (await ask(app)).status == status
    assert [record.levelname for record in caplog.records] == ([] if logged is None else [logged])
    if logged == "ERROR":
        assert "ExceptionGroup" in caplog.text

    @app.errorhandler(type(error))
    async def explain(request: Request, error: Exception) -> str:
        return f"by kind: {type(error).__name__}"

    assert (await ask(app)).text == f"by kind: {type(error).__name__}"


async def test_several_exceptions_stay_a_group(app: App) -> None:
    """Nobody could say which of them is the answer: a 500, unless there is a handler for groups."""
    raising(app, ExceptionGroup("both", [NotFound(), NotFound()]))
    assert (await ask(app)).status == 500

    @app.errorhandler(ExceptionGroup)
    async def explain(request: Request, error: ExceptionGroup[Exception]) -> str:
        return f"{len(error.exceptions)} of them"

    assert (await ask(app)).text == "2 of them"


async def test_http_errors_are_not_logged(app: App, caplog: pytest.LogCaptureFixture) -> None:
    """They are answers, not failures."""
    raising(app, NotFound())
    assert (await ask(app)).status == 404
    assert caplog.records == []


async def test_form_keys_that_are_missing_are_400(app: App) -> None:
    """`request.args["x"]` without an x is the client's mistake, as in Flask."""

    @app.get("/")
    async def show(request: Request) -> str:
        return request.args["x"]

    assert (await ask(app, "/?x=1")).text == "1"
    assert (await ask(app)).status == 400


async def test_error_handlers_for_a_status(app: App) -> None:
    """They get the HTTP error, whoever raised it, and say what handlers say."""

    @app.errorhandler(404)
    async def lost(request: Request, error: HTTPException) -> tuple[dict[str, str], int]:
        return {"lost": request.path, "name": error.name}, 404

    @app.errorhandler(503)
    async def later(request: Request, error: HTTPException) -> tuple[str, int]:
        return f"later: {type(error.__cause__).__name__}", 503

    raising(app, errors.LockTimeoutError(1), "/busy")

    @app.get("/mine")
    async def mine(request: Request) -> str:
        abort(404)

    answer = await ask(app, "/nowhere")
    assert (answer.status, answer.json()) == (404, {"lost": "/nowhere", "name": "Not Found"})
    assert (await ask(app, "/mine")).json()["lost"] == "/mine"
    answer = await ask(app, "/busy")
    assert (answer.status, answer.text) == (503, "later: LockTimeoutError")


async def test_error_handlers_for_a_kind(app: App, caplog: pytest.LogCaptureFixture) -> None:
    """The nearest kind in the family is asked, with the exception itself, and then nothing is logged."""

    @app.errorhandler(LookupError)
    async def lookup(request: Request, error: LookupError) -> str:
        return f"lookup {error.args[0]}"

    @app.errorhandler(Exception)
    async def anything(request: Request, error: Exception) -> str:
        return f"anything {type(error).__name__}"

    raising(app, KeyError(7), "/key")
    raising(app, ValueError(), "/value")
    assert (await ask(app, "/key")).text == "lookup 7"
    assert (await ask(app, "/value")).text == "anything ValueError"
    assert (await ask(app, "/nowhere")).text == "anything NotFound"
    assert caplog.records == []


async def test_a_status_comes_before_a_kind(app: App) -> None:
    """And HTTPException stands for every status that has no handler of its own, 500 included."""

    @app.errorhandler(HTTPException)
    async def any_http(request: Request, error: HTTPException) -> tuple[str, int]:
        cause = error.original_exception if isinstance(error, InternalServerError) else None
        return f"any {error.code} {cause!r}", error.code or 500

    @app.errorhandler(NotFound)
    async def not_found(request: Request, error: NotFound) -> str:
        return "by kind"

    @app.errorhandler(405)
    async def wrong_method(request: Request, error: HTTPException) -> str:
        return "by status"

    raising(app, ValueError(1), "/value")
    assert (await ask(app, "/nowhere")).text == "by kind"
    assert (await ask(app, "/value", method="POST")).text == "by status"
    assert (await ask(app, "/value")).text == "any 500 ValueError(1)"


async def test_http_errors_without_a_status(app: App) -> None:
    """A bare HTTPException is a server's error."""
    raising(app, HTTPException("what?"))
    assert (await ask(app)).status == 500


async def test_an_error_handler_may_abort(app: App, caplog: pytest.LogCaptureFixture) -> None:
    """What it aborts to is answered plainly."""

    @app.errorhandler(ValueError)
    async def translate(request: Request, error: ValueError) -> str:
        abort(422)

    raising(app, ValueError())
    assert (await ask(app)).status == 422
    assert caplog.records == []


async def test_an_error_handler_may_abort_out_of_a_nursery(app: App, caplog: pytest.LogCaptureFixture) -> None:
    """As a handler may."""

    @app.errorhandler(ValueError)
    async def translate(request: Request, error: ValueError) -> str:
        async with trio.open_nursery():
            abort(422)

    raising(app, ValueError())
    assert (await ask(app)).status == 422
    assert caplog.records == []


async def test_a_broken_error_handler_is_a_plain_500(app: App, caplog: pytest.LogCaptureFixture) -> None:
    """Both failures are in the log, none on the page."""

    @app.errorhandler(500)
    async def broken(request: Request, error: Exception) -> str:
        raise LookupError("secret of the handler")

    raising(app, ValueError("first secret"))
    answer = await ask(app)
    assert answer.status == 500
    assert "secret" not in answer.text
    assert "first secret" in caplog.text
    assert "secret of the handler" in caplog.text


@pytest.mark.parametrize("key", ["404", KeyboardInterrupt, Response])
def test_error_handlers_are_for_statuses_and_exceptions(app: App, key: Any) -> None:
    """Nothing else is ever handled, SystemExit and its like least of all."""
    with pytest.raises(TypeError, match="for a status or a kind of Exception"):

        @app.errorhandler(key)
        async def handler(request: Request, error: Exception) -> str:
            return ""


async def test_what_is_no_exception_passes(app: App) -> None:
    """KeyboardInterrupt and its like come out of the App bare."""

    class Stop(BaseException):
        pass

    raising(app, Stop())
    with pytest.raises(Stop):
        await ask(app)


async def test_after_the_start_an_error_comes_out_bare(app: App) -> None:
    """The server can then only cut the connection; a second response would be worse."""

    async def chunks() -> AsyncIterator[str]:
        yield "beginning"
        raise ValueError("too late")

    @app.get("/")
    async def stream(request: Request) -> Response:
        return Response(chunks())

    peer = Peer(app)
    with pytest.raises(ValueError, match="too late"):
        await peer.run()
    assert peer.types() == ["http.response.start", "http.response.body"]
    assert peer.text == "beginning"


async def test_errors_of_the_users_middlewares_come_out_bare(app: App) -> None:
    """They are outside of everything that makes answers."""

    class Broken:
        def __init__(self, app: object) -> None:
            pass

        async def __call__(self, *_: object) -> None:
            raise ValueError("middleware")

    app.add_middleware(Broken)
    with pytest.raises(ValueError, match="middleware"):
        await ask(app)


async def test_sessions_can_be_switched_off_with_one_word() -> None:
    """Whatever else is configured: the rest of the call may stay as it is."""
    from trio_session import SessionConfig

    app = App(SessionConfig(), sessions=False)

    @app.get("/")
    async def show(request: Request) -> str:
        return "served"

    assert (await ask(app)).text == "served"


async def test_without_sessions_the_session_says_how_to_get_one(app: App) -> None:
    """The text of the error is the fix."""

    @app.get("/")
    async def show(request: Request) -> str:
        return str(request.session)

    @app.errorhandler(errors.SessionStateError)
    async def explain(request: Request, error: errors.SessionStateError) -> str:
        return str(error)

    assert "without sessions=False" in (await ask(app)).text
    with pytest.raises(errors.SessionStateError, match="sessions=False"):
        _ = app.sessions


def test_importing_is_all_it_takes() -> None:
    """Handlers of every kind are registered without a running event loop."""
    app = App(sessions=False)

    @app.websocket("/ws")
    async def talk(ws: WebSocket) -> None:
        pass

    assert app.url_for(talk) == "/ws"
