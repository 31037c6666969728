"""The command `trio-session`: an application served, a demo to try, and a doctor for the server with the sessions.

_serve_command.py    serve an application
_demo_command.py     serve the demo; _demo is its application and its page
_programs.py         what both have in common: an address, and one line for every way it can fail
_doctor_command.py   what is wrong with the sessions' server, and what to type; doctor/ finds it
_stats_command.py    what is on that server; _survey.py counts it
_keyspace.py         what our keys and records look like from outside

Each command has a module with `add_to`, which describes it without loading what it needs to run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from . import _demo_command, _doctor_command, _serve_command, _stats_command

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: the arguments; None for those of the process.

    Returns:
        The exit code: 0 after Ctrl-C or SIGTERM, 1 if an address cannot be used, 2 for a wrong option or setting,
        3 if the application could not start, 4 if it broke down later. `doctor` and `stats` have theirs in their help.

    Raises:
        SystemExit: argparse's way to end after `--help`, `--version` and wrong arguments.
    """
    parser = _make_parser()
    options = parser.parse_args(argv)
    if options.command is None:
        parser.print_help(sys.stderr)
        return 2
    code: int = options.run(options)
    return code


def _make_parser() -> argparse.ArgumentParser:
    from .. import __version__

    parser = argparse.ArgumentParser(prog="trio-session", description="HTTP sessions for Trio that lock.")
    parser.add_argument("--version", action="version", version=f"trio_session {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for command in (_serve_command, _demo_command, _doctor_command, _stats_command):
        command.add_to(commands)
    return parser
