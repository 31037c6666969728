"""A counter that never miscounts, however fast you click.

Start it with `python counter.py --port 8000` or `trio-session serve counter:app`, and look at the cookie in the
answer: `curl -i -b jar -c jar http://127.0.0.1:8000/visits`.
"""

import argparse
import os

from hypercorn.config import Config

from trio_session.serving import run
from trio_session.web import App, Request

app = App()  # sessions are on: nothing to register


@app.get("/visits")
async def visits(request: Request) -> dict[str, int]:
    """Count this visit."""
    async with request.session.locked() as data:  # exclusive in every process; data is a plain dict
        data["visits"] = data.get("visits", 0) + 1  # an exception or a cancellation here rolls back
    return {"visits": data["visits"]}  # leaving the block committed, once, fenced


def main() -> None:
    """Serve the application until Ctrl-C."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", default=os.environ.get("PORT", "8000"), help="0 for a free one")
    config = Config.from_mapping(bind=f"127.0.0.1:{parser.parse_args().port}", loglevel="WARNING")
    run(app, config, announce=lambda urls: print(urls[0], flush=True))


if __name__ == "__main__":
    main()
