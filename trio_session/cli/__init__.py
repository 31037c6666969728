"""The command `trio-session`: a demo to try, and a version to quote.

_demo.py        the demo's application, demo.html its page
_serve.py       serving an application until Ctrl-C, with one line for every way it can fail
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: the arguments; None for those of the process.

    Returns:
        The exit code: 0 after Ctrl-C or SIGTERM, 1 if the address cannot be used, 2 for a wrong option or setting,
        3 if the application could not start.

    Raises:
        SystemExit: argparse's way to end after `--help`, `--version` and wrong arguments.
    """
    parser = _make_parser()
    options = parser.parse_args(argv)
    if options.command is None:
        parser.print_help(sys.stderr)
        return 2
    return _serve_demo(options.host, options.port)


def _make_parser() -> argparse.ArgumentParser:
    from .. import __version__

    parser = argparse.ArgumentParser(prog="trio-session", description="HTTP sessions for Trio that lock.")
    parser.add_argument("--version", action="version", version=f"trio_session {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    demo = commands.add_parser(
        "demo",
        help="serve a page that shows what a session can do, and what happens without locks",
        description="Serve the demo page until Ctrl-C. The environment configures its sessions: "
        "SESSION_LIFETIME, SESSION_COOKIE_NAME and the others.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    demo.add_argument("--host", default="127.0.0.1", help="the address to listen on; 0.0.0.0 for every one")
    demo.add_argument("--port", type=_port, default=8000, help="the port to listen on; 0 for a free one")
    return parser


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is no port: use a number from 0 to 65535, 0 for a free one")
    return int(text)


def _serve_demo(host: str, port: int) -> int:
    # Here, because `--version` need not wait for a web framework and a server to load.
    from .._errors import ConfigError
    from ._demo import make_app
    from ._serve import complain, serve_until_stopped

    try:
        app = make_app()
    except ConfigError as error:
        complain(f"the settings in the environment are wrong: {error}")
        return 2

    def announce(url: str) -> None:
        print(f"The trio_session demo is at {url}", flush=True)
        print("Press Ctrl-C to stop it.", flush=True)

    return serve_until_stopped(app, host, port, announce=announce)
