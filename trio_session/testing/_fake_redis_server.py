"""The fake server without its connections: who asks, what may they, and what is the answer. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Final

from ._fake_redis_data import DATA_COMMANDS, Keyspace
from ._fake_redis_replies import OK, Answer, CommandError, Several, Status, encode, to_int
from ._fake_redis_scripts import Scripts

__all__ = ["Client", "Server", "Settings"]

_DATABASES: Final = 16
# One fixed moment, in September 2020, at which trio's clock shows 0: TIME is the same in every run on a mock clock.
_EPOCH: Final = 1_600_000_000_000_000  # microseconds since 1970

_NO_AUTH: Final = "NOAUTH Authentication required."
_NO_HELLO: Final = (
    "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH <user> <pass> option "
    "can be used to authenticate the client and select the RESP protocol version at the same time"
)
_WRONG_CREDENTIALS: Final = "WRONGPASS invalid username-password pair or user is disabled."
_NO_CREDENTIALS: Final = (
    "ERR AUTH <password> called without any password configured for the default user. "
    "Are you sure your configuration is correct?"
)
_OUT_OF_MEMORY: Final = "OOM command not allowed when used memory > 'maxmemory'."
_READ_ONLY: Final = "READONLY You can't write against a read only replica."
_NO_WAIT: Final = (
    "ERR WAIT cannot be used with replica instances. Please also note that since Redis 4.0 if a replica is configured "
    "to be writable (which is not the default) writes to replicas are just local and are not propagated."
)
_SUBSCRIBED: Final = (
    "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context"
)


@dataclass(eq=False)
class Settings:
    """What can be set on a server while it runs.

    Attributes:
        password: new connections have to give it; None: they need not.
        username: whose password it is; None: the default user's.
        version: as HELLO and INFO tell it.
        read_only: it is a replica: says so in HELLO, and refuses writes with READONLY.
        out_of_memory: commands that need memory are refused with OOM; a script's, unless it has written already.
        maxmemory: as INFO tells it, in bytes; 0: no limit.
        maxmemory_policy: as INFO tells it.
        replicas: so many are connected, and have all that was written; WAIT says so.
        replid: names the history of its writes, as INFO tells it; set another one, and it has been a replica meanwhile.
    """

    password: str | None = None
    username: str | None = None
    version: str = "7.0.15"
    read_only: bool = False
    out_of_memory: bool = False
    maxmemory: int = 0
    maxmemory_policy: str = "noeviction"
    replicas: int = 0
    replid: str = "a" * 40


@dataclass(eq=False, slots=True)
class Client:
    """A connection as the server sees it.

    Attributes:
        push: called with bytes that were not asked for, the messages of its channels.
        id: its number.
        authenticated: it has given the password, or need not.
        db: its database.
        channels: it has subscribed to these.
    """

    push: Callable[[bytes], None]
    id: int
    authenticated: bool
    db: int = 0
    channels: set[bytes] = field(default_factory=set)


class Server:
    """Databases, scripts and subscribers.

    Args:
        settings: looked at with each command.
        clock: seconds since whenever.

    Raises:
        ImportError: lupa is not installed.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._databases: defaultdict[int, Keyspace] = defaultdict(Keyspace)
        self._scripts = Scripts()
        self._clients: set[Client] = set()
        self._ids = count(1)

    def database(self, number: int = 0) -> Keyspace:
        """A database, as of now."""
        keys = self._databases[number]
        keys.now = _EPOCH + round(self._clock() * 1_000_000)
        return keys

    def add_client(self, push: Callable[[bytes], None]) -> Client:
        client = Client(push, next(self._ids), authenticated=self._settings.password is None)
        self._clients.add(client)
        return client

    def remove_client(self, client: Client) -> None:
        """Its connection has ended, and so have its subscriptions."""
        self._clients.discard(client)

    def restart(self, *, keep_data: bool) -> None:
        """Forget the scripts, and the data too if it is not to be kept."""
        self._scripts.forget()
        if not keep_data:
            self._databases.clear()

    def execute(self, client: Client, words: list[bytes]) -> bytes:
        """Execute a command and return its reply."""
        try:
            return encode(self._execute(client, words))
        except CommandError as error:
            return encode(error)

    def _execute(self, client: Client, words: list[bytes]) -> Answer | Several:
        settings = self._settings
        name = words[0].decode("latin-1").upper()
        if name in _SERVER_COMMANDS:
            run, arity = _SERVER_COMMANDS[name]
            run = partial(run, self, client)
            writes, grows = name == "FLUSHALL", False
        elif name in DATA_COMMANDS:
            command = DATA_COMMANDS[name]
            arity, writes, grows = command.arity, command.writes, command.grows
            run = partial(command.run, self.database(client.db))
        else:
            arguments = b"".join(b"'%b' " % word[:128] for word in words[1:])
            raise CommandError(b"ERR unknown command '%b', with args beginning with: %b" % (words[0][:128], arguments))
        _check_arity(name, arity, len(words))
        if not client.authenticated and name not in {"AUTH", "HELLO"}:
            raise CommandError(_NO_AUTH)
        if settings.out_of_memory and grows:
            raise CommandError(_OUT_OF_MEMORY)
        if settings.read_only and writes:
            raise CommandError(_READ_ONLY)
        if client.channels and name not in {"SUBSCRIBE", "PING"}:
            raise CommandError(_SUBSCRIBED.format(name.lower()))
        return run(*words[1:])

    # -- connections --------------------------------------------------------------------------------------------------

    def _hello(self, client: Client, *words: bytes) -> Answer:
        if words and not 2 <= to_int(words[0], "ERR Protocol version is not an integer or out of range") <= 2:
            raise CommandError("NOPROTO unsupported protocol version")
        options = list(words[1:])
        credentials = None
        while options:
            option = options.pop(0)
            if option.upper() == b"AUTH" and len(options) >= 2:
                credentials = options.pop(0), options.pop(0)
            elif option.upper() == b"SETNAME" and options:
                if not all(0x21 <= byte <= 0x7E for byte in options.pop(0)):
                    raise CommandError("ERR Client names cannot contain spaces, newlines or special characters.")
            else:
                raise CommandError(b"ERR Syntax error in HELLO option '%b'" % option)
        if credentials is not None:
            self._log_in(client, *credentials)
        if not client.authenticated:
            raise CommandError(_NO_HELLO)
        settings = self._settings
        facts: dict[bytes, Answer] = {
            b"server": b"redis",
            b"version": settings.version.encode(),
            b"proto": 2,
            b"id": client.id,
            b"mode": b"standalone",
            b"role": b"replica" if settings.read_only else b"master",
            b"modules": [],
        }
        return [word for fact in facts.items() for word in fact]

    def _auth(self, client: Client, *words: bytes) -> Answer:
        match words:
            case (username, password):
                self._log_in(client, username, password)
            case (password,) if self._settings.password is not None:
                self._log_in(client, b"default", password)
            case (_,):
                raise CommandError(_NO_CREDENTIALS)
            case _:
                raise CommandError("ERR syntax error")
        return OK

    def _log_in(self, client: Client, username: bytes, password: bytes) -> None:
        settings = self._settings
        known = (settings.username or "default").encode()
        if username != known or (settings.password is not None and password != settings.password.encode()):
            raise CommandError(_WRONG_CREDENTIALS)
        client.authenticated = True

    def _select(self, client: Client, number: bytes) -> Answer:
        db = to_int(number)
        if not 0 <= db < _DATABASES:
            raise CommandError("ERR DB index is out of range")
        client.db = db
        return OK

    def _ping(self, client: Client, *words: bytes) -> Answer:
        if len(words) > 1:
            raise CommandError("ERR wrong number of arguments for 'ping' command")
        if client.channels:
            return [b"pong", *(words or [b""])]
        return words[0] if words else Status(b"PONG")

    def _info(self, _: Client, *sections: bytes) -> Answer:
        settings = self._settings
        known: dict[str, dict[str, object]] = {
            "server": {"redis_version": settings.version, "redis_mode": "standalone"},
            "memory": {"maxmemory": settings.maxmemory, "maxmemory_policy": settings.maxmemory_policy},
            "replication": {
                "role": "slave" if settings.read_only else "master",
                "connected_slaves": settings.replicas,
                "master_replid": settings.replid,
            },
        }
        wanted = {section.decode("latin-1").lower() for section in sections} or {"default"}
        if wanted & {"default", "all", "everything"}:
            wanted |= known.keys()
        texts = [
            f"# {section.capitalize()}\r\n" + "".join(f"{name}:{value}\r\n" for name, value in facts.items())
            for section, facts in known.items()
            if section in wanted
        ]
        return "\r\n".join(texts).encode()

    def _wait(self, _: Client, replicas: bytes, timeout: bytes) -> Answer:
        settings = self._settings
        if settings.read_only:
            raise CommandError(_NO_WAIT)
        to_int(replicas)
        ms = to_int(timeout, "ERR timeout is not an integer or out of range")
        if ms < 0:
            raise CommandError("ERR timeout is negative")
        return settings.replicas

    def _subscribe(self, client: Client, *channels: bytes) -> Several:
        answers: list[Answer] = []
        for channel in channels:
            client.channels.add(channel)
            answers.append([b"subscribe", channel, len(client.channels)])
        return Several(answers)

    def _publish(self, _: Client, channel: bytes, message: bytes) -> Answer:
        hearers = [client for client in self._clients if channel in client.channels]
        for client in hearers:
            client.push(encode([b"message", channel, message]))
        return len(hearers)

    def _flush(self, _: Client, *options: bytes) -> Answer:
        if len(options) > 1 or (options and options[0].upper() not in {b"SYNC", b"ASYNC"}):
            raise CommandError("ERR syntax error")
        self._databases.clear()
        return OK

    # -- scripts ------------------------------------------------------------------------------------------------------

    def _script(self, _: Client, subcommand: bytes, *words: bytes) -> Answer:
        match subcommand.upper():
            case b"LOAD":
                _check_arity("script|load", 2, 1 + len(words))
                return self._scripts.load(words[0])
            case b"EXISTS":
                _check_arity("script|exists", -2, 1 + len(words))
                return [int(digest.lower() in self._scripts) for digest in words]
            case b"FLUSH":
                if len(words) > 1 or (words and words[0].upper() not in {b"SYNC", b"ASYNC"}):
                    raise CommandError("ERR SCRIPT FLUSH only support SYNC|ASYNC option")
                self._scripts.forget()
                return OK
            case _:
                raise CommandError(b"ERR unknown subcommand '%b'. Try SCRIPT HELP." % subcommand[:128])

    def _evalsha(self, client: Client, digest: bytes, *words: bytes) -> Answer:
        if digest.lower() not in self._scripts:
            raise CommandError("NOSCRIPT No matching script. Please use EVAL.")
        return self._run_script(client, digest.lower, *words)

    def _eval(self, client: Client, text: bytes, *words: bytes) -> Answer:
        return self._run_script(client, lambda: self._scripts.load(text), *words)

    def _run_script(self, client: Client, find: Callable[[], bytes], number: bytes, *words: bytes) -> Answer:
        keys = to_int(number)
        if keys > len(words):
            raise CommandError("ERR Number of keys can't be greater than number of args")
        if keys < 0:
            raise CommandError("ERR Number of keys can't be negative")
        calls = _ScriptCalls(self._settings, self.database(client.db), partial(self._publish, client))
        return self._scripts.run(find(), words[:keys], words[keys:], calls.execute)


class _ScriptCalls:
    """The commands of one run of a script."""

    def __init__(self, settings: Settings, keys: Keyspace, publish: Callable[[bytes, bytes], Answer]) -> None:
        self._settings = settings
        self._keys = keys
        self._publish = publish
        self._has_written = False

    def execute(self, words: list[bytes]) -> Answer:
        name = words[0].decode("latin-1").upper()
        if name == "PUBLISH":
            self._check_arity(3, len(words))
            return self._publish(*words[1:])
        if name in _SERVER_COMMANDS:
            raise CommandError("ERR This Redis command is not allowed from script")
        command = DATA_COMMANDS.get(name)
        if command is None:
            raise CommandError("ERR Unknown Redis command called from script")
        self._check_arity(command.arity, len(words))
        if command.writes and self._settings.read_only:
            raise CommandError(_READ_ONLY)
        if command.grows and self._settings.out_of_memory and not self._has_written:
            raise CommandError(_OUT_OF_MEMORY)
        self._has_written = self._has_written or command.writes
        return command.run(self._keys, *words[1:])

    def _check_arity(self, arity: int, length: int) -> None:
        if not _fits(arity, length):
            raise CommandError("ERR Wrong number of args calling Redis command from script")


_SERVER_COMMANDS: Final[dict[str, tuple[Callable[..., Answer | Several], int]]] = {
    "AUTH": (Server._auth, -2),
    "EVAL": (Server._eval, -3),
    "EVALSHA": (Server._evalsha, -3),
    "FLUSHALL": (Server._flush, -1),
    "HELLO": (Server._hello, -1),
    "INFO": (Server._info, -1),
    "PING": (Server._ping, -1),
    "PUBLISH": (Server._publish, 3),
    "SCRIPT": (Server._script, -2),
    "SELECT": (Server._select, 2),
    "SUBSCRIBE": (Server._subscribe, -2),
    "WAIT": (Server._wait, 3),
}


def _check_arity(name: str, arity: int, length: int) -> None:
    if not _fits(arity, length):
        raise CommandError(f"ERR wrong number of arguments for '{name.lower()}' command")


def _fits(arity: int, length: int) -> bool:
    return length >= -arity if arity < 0 else length == arity
