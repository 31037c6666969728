"""`trio-session demo`: the demo page, on one process or several."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

__all__ = ["add_to"]


def add_to(commands: Any) -> None:
    """Describe the command to `argparse`."""
    demo: argparse.ArgumentParser = commands.add_parser(
        "demo",
        help="serve a page that shows what a session can do, and what happens without locks",
        description="Serve the demo page until Ctrl-C. The environment configures its sessions: "
        "SESSION_LIFETIME, SESSION_COOKIE_NAME and the others; with SESSION_DRIVER=redis and REDIS_URL they are on "
        "a Redis of yours, with Sentinels or a cluster too. The page is for whoever starts it, not for strangers.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    demo.add_argument("--host", default="127.0.0.1", help="the address to listen on; 0.0.0.0 for every one")
    demo.add_argument("--port", type=_port, default=8000, help="the port to listen on; 0 for a free one")
    demo.add_argument(
        "--driver", choices=("local", "redis"), help="redis: with a Redis server of its own, which ends with the demo"
    )
    demo.add_argument("-w", "--workers", type=int, help="the number of processes; 2 with --driver redis, 1 otherwise")
    demo.set_defaults(run=_run)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is no port: use a number from 0 to 65535, 0 for a free one")
    return int(text)


def _run(options: argparse.Namespace) -> int:
    # Here, because `--version` need not wait for a web framework and a server to load.
    from hypercorn.config import Config

    from .._config import SessionConfig
    from .._errors import ConfigError
    from ._demo import NoServerError, running_server
    from ._programs import complain, serve_until_stopped

    def announce(urls: Sequence[str]) -> None:
        print(f"The trio_session demo is at {urls[0]}", flush=True)
        print("Press Ctrl-C to stop it.", flush=True)

    host = f"[{options.host}]" if ":" in options.host else options.host
    workers = options.workers or (2 if options.driver == "redis" else 1)
    config = Config.from_mapping(bind=f"{host}:{options.port}", workers=workers, loglevel="WARNING")
    with ExitStack() as stack:
        try:
            if options.driver == "redis":
                os.environ.update(REDIS_URL=stack.enter_context(running_server()), SESSION_CONNECTION="")
            if options.driver is not None:
                os.environ["SESSION_DRIVER"] = options.driver
            SessionConfig.from_env()
        except ConfigError as error:
            complain(f"the settings in the environment are wrong: {error}")
            return 2
        except NoServerError as error:
            complain(str(error))
            return 2
        return serve_until_stopped("trio_session.cli._demo:make_app()", config, announce=announce)
