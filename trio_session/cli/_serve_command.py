"""`trio-session serve`: an application on Hypercorn's trio worker, its traps closed."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hypercorn.config import Config

__all__ = ["add_to"]

# Hypercorn's own options, by the names of its settings. Everything else of it can be in its configuration file.
_OPTIONS: dict[str, tuple[tuple[str, ...], type, str]] = {
    "workers": (("-w", "--workers"), int, "how many processes share the work; more than one needs a driver like redis"),
    "certfile": (("--certfile",), str, "the TLS certificate"),
    "keyfile": (("--keyfile",), str, "the key of the TLS certificate"),
    "keyfile_password": (("--keyfile-password",), str, "what the key is encrypted with"),
    "ca_certs": (("--ca-certs",), str, "the authorities of client certificates"),
    "ciphers": (("--ciphers",), str, "the TLS ciphers"),
    "accesslog": (("--access-logfile",), str, "where requests are logged; - for standard output"),
    "access_log_format": (("--access-logformat",), str, "how requests are logged"),
    "errorlog": (("--error-logfile", "--log-file"), str, "where the server logs; - for standard error"),
    "loglevel": (("--log-level",), str, "from which level on the server logs"),
    "logconfig": (("--log-config",), str, "a file with the configuration of Python's logging"),
    "graceful_timeout": (("--graceful-timeout",), float, "seconds for requests to finish when the server stops"),
    "keep_alive_timeout": (("--keep-alive",), float, "seconds until an idle connection is closed"),
    "read_timeout": (("--read-timeout",), int, "seconds until a silent connection is closed"),
    "backlog": (("--backlog",), int, "how many connections may wait to be accepted"),
    "max_requests": (("--max-requests",), int, "after how many requests a worker is replaced"),
    "max_requests_jitter": (("--max-requests-jitter",), int, "up to how many more, at random"),
    "root_path": (("--root-path",), str, "the path that a proxy has put in front of ours"),
    "pid_path": (("-p", "--pid"), str, "a file for the process id"),
    "umask": (("-m", "--umask"), int, "the permission mask of unix sockets"),
    "user": (("-u", "--user"), int, "the user id that unix sockets belong to"),
    "group": (("-g", "--group"), int, "the group id that unix sockets belong to"),
    "statsd_host": (("--statsd-host",), str, "where a statsd server listens, as host:port"),
    "statsd_prefix": (("--statsd-prefix",), str, "what its metrics begin with"),
    "websocket_ping_interval": (("--websocket-ping-interval",), float, "seconds between pings on WebSockets"),
}


def add_to(commands: Any) -> None:
    """Describe the command to `argparse`."""
    serve: argparse.ArgumentParser = commands.add_parser(
        "serve",
        help="serve an ASGI application on trio",
        description="Serve an ASGI application with Hypercorn's trio worker until Ctrl-C or SIGTERM, which end it "
        "gracefully. The options are Hypercorn's, and so is the configuration file.",
    )
    serve.add_argument("app", metavar="MODULE:APP", help="where to import the application from, like app:app")
    serve.add_argument(
        "-c", "--config", help="Hypercorn's configuration: a TOML file, file:<a Python file> or python:<a module>"
    )
    serve.add_argument(
        "-b",
        "--bind",
        action="append",
        metavar="ADDRESS",
        help="host:port, unix:path or fd://number, as often as you like (default: 127.0.0.1:8000)",
    )
    serve.add_argument("--insecure-bind", action="append", metavar="ADDRESS", help="the same without TLS, beside it")
    serve.add_argument("--server-name", dest="server_names", action="append", help="a host name that is served")
    for name, (flags, kind, description) in _OPTIONS.items():
        serve.add_argument(*flags, dest=name, type=kind, metavar=kind.__name__.upper(), help=description)
    serve.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    # Here, because `--version` need not wait for a server to load.
    from ._programs import complain, serve_until_stopped

    try:
        config = _load(options.config)
    except Exception as error:  # noqa: BLE001 - whatever its module raises
        complain(f"the configuration {options.config} cannot be used: {type(error).__name__}: {error}")
        return 2
    for name in (*_OPTIONS, "bind", "insecure_bind", "server_names"):
        value = getattr(options, name)
        if value is not None:
            setattr(config, name, value)
    return serve_until_stopped(options.app, config)


def _load(place: str | None) -> Config:
    from hypercorn.config import Config

    if place is None:
        return Config()
    kind, _, rest = place.partition(":")
    match kind:
        case "python":
            return Config.from_object(rest)
        case "file":
            return Config.from_pyfile(rest)
        case _:
            return Config.from_toml(place)
