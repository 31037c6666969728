"""No framework at all: sessions for any ASGI application. Starlette, FastAPI, Litestar and Quart are wrapped alike.

Start it with `python plain_asgi.py --port 8000` or `trio-session serve plain_asgi:app`, and ask for some pages:
`curl -b jar -c jar http://127.0.0.1:8000/any/path`.
"""

import argparse
import os
from typing import Any

from hypercorn.config import Config

from trio_session import SessionMiddleware, get_session
from trio_session.serving import run


async def guest_book(scope: Any, receive: Any, send: Any) -> None:
    """The three arguments of ASGI; lifespan is answered by the middleware."""
    if scope["type"] != "http":
        return
    session = get_session(scope)  # also at scope["session"], where frameworks look for it
    pages = await session.increment("pages")  # lock, add and commit in one go
    async with session.locked() as data:
        data["seen"] = [scope["path"], *data.get("seen", [])][:3]
    # Everything is committed before the response starts: the cookie goes with it, and the next request sees the data.
    text = f"Page {pages} of your visit. The last ones: {' '.join(session['seen'])}\n"
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})


app = SessionMiddleware(guest_book)


def main() -> None:
    """Serve the application until Ctrl-C."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", default=os.environ.get("PORT", "8000"), help="0 for a free one")
    config = Config.from_mapping(bind=f"127.0.0.1:{parser.parse_args().port}", loglevel="WARNING")
    run(app, config, announce=lambda urls: print(urls[0], flush=True))


if __name__ == "__main__":
    main()
