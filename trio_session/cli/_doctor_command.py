"""`trio-session doctor`: what is wrong with the server that has the sessions, and what to type."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .._config import SessionConfig

__all__ = ["add_config_to", "add_to", "load_config"]


def add_to(commands: Any) -> None:
    """Describe the command to `argparse`."""
    doctor: argparse.ArgumentParser = commands.add_parser(
        "doctor",
        help="say what is wrong with the sessions' server, and what to type",
        description="Connect as the application does, try everything it needs, and say in plain words what is wrong "
        "and what to type. The worst comes first.",
        epilog="exit codes: 0 all is well; 1 sessions work, but not as they should; 2 an option or a setting is wrong; "
        "3 sessions do not work",
    )
    add_config_to(doctor)
    doctor.add_argument(
        "-w",
        "--workers",
        type=int,
        metavar="INT",
        help="how many processes serve the application (default: WEB_CONCURRENCY, else 1)",
    )
    doctor.add_argument("--json", action="store_true", help="one JSON object instead of text")
    doctor.set_defaults(run=_run)


def add_config_to(command: argparse.ArgumentParser) -> None:
    """Describe the option that says where the configuration is."""
    command.add_argument(
        "--config",
        metavar="MODULE:NAME",
        help="where to import a SessionConfig from, like settings:sessions (default: the environment)",
    )


def load_config(place: str | None) -> SessionConfig:
    """The configuration at `MODULE:NAME`, or of the environment.

    Raises:
        ValueError: there is none, or it cannot be used; also a `ConfigError`.
    """
    from .._config import SessionConfig

    if place is None:
        return SessionConfig.from_env()
    module, _, name = place.partition(":")
    sys.path.insert(0, str(Path.cwd()))  # as `python -m` and servers have it
    try:
        value: object = importlib.import_module(module)
        for part in name.split("."):
            value = getattr(value, part)
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"{place} cannot be imported: {type(error).__name__}: {error}") from error
    finally:
        sys.path.pop(0)
    if not isinstance(value, SessionConfig):
        raise ValueError(f"{place} is no SessionConfig, but of type {type(value).__name__}")  # noqa: TRY004
    return value


def _workers_of(environ: Mapping[str, str]) -> int:
    """As many servers and hosts set it."""
    try:
        return int(environ.get("WEB_CONCURRENCY") or 1)
    except ValueError:
        raise ValueError("WEB_CONCURRENCY must be a whole number") from None


def _run(options: argparse.Namespace) -> int:
    # Here, because `--version` need not wait for redis to load.
    import trio

    from .doctor import as_json, as_text, examine, exit_code, settings_are_wrong

    try:
        workers = options.workers or _workers_of(os.environ)
        config = load_config(options.config)
    except ValueError as error:
        findings = [settings_are_wrong(error)]
    else:
        logger, nowhere = logging.getLogger("trio_session"), logging.NullHandler()
        logger.addHandler(nowhere)  # the findings say the same
        try:
            findings = trio.run(partial(examine, config, workers=workers))
        except KeyboardInterrupt:
            return 130
        finally:
            logger.removeHandler(nowhere)
    print((as_json if options.json else as_text)(findings))
    return exit_code(findings)
