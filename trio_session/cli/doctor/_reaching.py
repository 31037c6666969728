"""Getting to a server as the application does, one step at a time, so that the step that fails has a name."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

import trio

from ...redis._address import CONNECT_TIMEOUT, Address
from ...redis._connection import LINK_ERRORS, OLDEST, Connection
from ...redis._resp import Reply, ServerError
from ...redis._supervisor import describe
from ._findings import DeadEndError, Finding, Level
from ._health import Facts

__all__ = ["reach"]

# How a host, or what stands in between, says no.
_NO_WAY: Final = {
    errno.ECONNREFUSED: "nobody listens there",
    errno.EHOSTUNREACH: "its host cannot be reached from here",
    errno.ENETUNREACH: "its network cannot be reached from here",
    errno.ETIMEDOUT: "its host does not answer",
    errno.ENOENT: "there is no such socket",
    errno.EACCES: "this user may not open the socket",
}


async def reach(address: Address, setting: str, announced: str | None = None) -> tuple[Connection, Facts]:
    """Connect and log in.

    Args:
        address: of the server.
        setting: what the user has to change if it is wrong.
        announced: the same for host and port, if others have told us where it is.

    Returns:
        The connection, and what the server says about itself, as `INFO` would. It may be a replica.

    Raises:
        DeadEndError: it cannot be done; the finding says why.
    """
    stream = await _open(address, announced or setting)
    connection = Connection(stream)
    try:
        await _shake_hands(stream, address, setting)
        return connection, await _log_in(connection, address, setting)
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise


# -- steps ------------------------------------------------------------------------------------------------------------


async def _open(address: Address, setting: str) -> trio.abc.Stream:
    with trio.move_on_after(CONNECT_TIMEOUT):
        try:
            return await address.open_stream()
        except OSError as error:
            raise DeadEndError(_no_way(error, address, setting)) from error
    text = f"{address}: no answer within {CONNECT_TIMEOUT:g} s; a firewall is in between, or the address is wrong"
    raise DeadEndError(Finding(Level.PROBLEM, "network", text, f"correct {setting}, or open the port"))


def _no_way(error: OSError, address: Address, setting: str) -> Finding:
    for cause in _causes(error):
        if isinstance(cause, socket.gaierror):
            text = f"{address}: the name of its host is not known"
            return Finding(Level.PROBLEM, "network", text, f"correct the host in {setting}, or its entry in the DNS")
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno in _NO_WAY:
            text = f"{address}: {_NO_WAY[cause.errno]}"
            if cause.errno == errno.EACCES:
                return Finding(Level.PROBLEM, "network", text, "unixsocketperm 770 in redis.conf, and a common group")
            return Finding(Level.PROBLEM, "network", text, f"start the server, or say in {setting} where it is")
    return Finding(Level.PROBLEM, "network", f"{address}: {describe(error)}", f"correct {setting}")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and what it goes back to: of a host with several addresses, one cause for each."""
    yield error
    for cause in error.exceptions if isinstance(error, BaseExceptionGroup) else (error.__cause__,):
        if cause is not None:
            yield from _causes(cause)


async def _shake_hands(stream: trio.abc.Stream, address: Address, setting: str) -> None:
    if not isinstance(stream, trio.SSLStream):
        return
    reason: BaseException | None = None
    with trio.move_on_after(CONNECT_TIMEOUT):
        try:
            await stream.do_handshake()
        except trio.BrokenResourceError as error:
            reason = error
        else:
            return
    for cause in _causes(reason) if reason is not None else ():
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise DeadEndError(_bad_certificate(cause, address, setting)) from reason
    if await _speaks_plain(address):
        text = f"{address}: the server does not speak TLS on this port"
        raise DeadEndError(Finding(Level.PROBLEM, "tls", text, f"write redis:// instead of rediss:// in {setting}"))
    text = f"{address}: no TLS connection can be made: {describe(reason) if reason else 'no answer'}"
    raise DeadEndError(Finding(Level.PROBLEM, "tls", text, "see tls-port and tls-protocols in its redis.conf"))


def _bad_certificate(error: ssl.SSLCertVerificationError, address: Address, setting: str) -> Finding:
    said = error.verify_message
    if "expired" in said or "not yet valid" in said:
        fix = "renew the server's certificate, or set the clock of this machine"
    elif "valid for" in said:
        fix = f"write the name that the certificate is for into {setting}, or get one for this name"
    else:
        fix = f"name the authority that signed it: append ?ssl_ca_certs=/path/to/ca.pem to {setting}"
    return Finding(Level.PROBLEM, "tls", f"{address}: its certificate is not accepted: {said}", fix)


async def _log_in(connection: Connection, address: Address, setting: str) -> Facts:
    hello: list[str | int] = ["HELLO", 2]
    if address.username is not None or address.password is not None:
        hello += ["AUTH", address.username or "default", address.password or ""]
    try:
        with trio.fail_after(CONNECT_TIMEOUT):
            (reply,) = await connection.ask(tuple(hello))
            greeting = _greeting(reply, address, setting)
            (selected,) = await connection.ask(("SELECT", address.db) if address.db is not None else ("PING",))
    except trio.TooSlowError as error:
        text = f"{address}: it takes the connection and then says nothing for {CONNECT_TIMEOUT:g} s"
        raise DeadEndError(Finding(Level.PROBLEM, "server", text, "see on its machine: redis-cli PING; top")) from error
    except LINK_ERRORS as error:
        raise DeadEndError(await _hung_up(error, address, setting)) from error
    if isinstance(selected, ServerError):
        text = f"{address}: database {address.db} cannot be used: {_without_arguments(selected)}"
        fix = f"take another one in {setting}, or: redis-cli ACL SETUSER {address.username or 'default'} +select"
        raise DeadEndError(Finding(Level.PROBLEM, "database", text, fix))
    return greeting


def _greeting(reply: Reply, address: Address, setting: str) -> Facts:
    if isinstance(reply, ServerError):
        raise DeadEndError(_refusal(reply, address, setting))
    said = dict(zip(reply[::2], reply[1::2], strict=False)) if isinstance(reply, list) else {}
    version = said.get(b"version")
    if not isinstance(version, bytes):
        text = f"{address}: what answers there is no Redis"
        raise DeadEndError(Finding(Level.PROBLEM, "server", text, f"correct host and port in {setting}"))
    number = version.decode("ascii", "replace")
    if tuple(int(part) for part in number.split(".")[:2] if part.isdecimal()) < OLDEST:
        raise DeadEndError(_too_old(f"Redis {number}", address))
    mode = said.get(b"mode")
    if mode == b"sentinel" and address.db is not None:
        text = f"{address}: it is a Sentinel, and has no sessions itself"
        fix = f"write redis+sentinel://{address.host}:{address.port}/<name of the primary>/0 into {setting}"
        raise DeadEndError(Finding(Level.PROBLEM, "sentinel", text, fix))
    if mode != b"sentinel" and address.db is None:
        text = f"{address}: it is no Sentinel"
        raise DeadEndError(
            Finding(Level.PROBLEM, "sentinel", text, f"write redis:// into {setting}, or the Sentinels' port")
        )
    role = "master" if said.get(b"role") == b"master" else "slave"
    return {"role": role, "mode": "cluster" if mode == b"cluster" else "standalone"}


def _too_old(name: str, address: Address) -> Finding:
    text = f"{address}: {name} is too old: 6.2 or newer is needed"
    return Finding(Level.PROBLEM, "version", text, "install Redis 6.2 or newer, or Valkey, on its machine")


def _refusal(error: ServerError, address: Address, setting: str) -> Finding:
    said = _without_arguments(error)
    word = said.split(" ", 1)[0]
    where = f"write them into {setting}, as in redis://user:password@host (special characters percent-encoded)"
    if word == "WRONGPASS":
        text = f"{address}: user or password are wrong, or the user is switched off"
        return Finding(Level.PROBLEM, "login", text, where)
    if word == "NOAUTH" or (word == "NOPERM" and address.password is None):
        return Finding(Level.PROBLEM, "login", f"{address}: it wants a user and a password, and none is given", where)
    if "unknown command" in said:
        return _too_old("the server", address)
    if word == "LOADING":
        text = f"{address}: it has just been started and is still loading its data"
        return Finding(Level.PROBLEM, "server", text, "wait")
    if "max number of clients" in said:
        fix = "redis-cli CLIENT LIST   # who has so many\nredis-cli CONFIG SET maxclients 20000"
        return Finding(Level.PROBLEM, "server", f"{address}: it has as many clients as it takes (maxclients)", fix)
    if word == "DENIED":
        text = f"{address}: it is in protected mode: without a password it serves its own machine only"
        return Finding(Level.PROBLEM, "login", text, f"give it a user and a password; then {where}")
    return Finding(Level.PROBLEM, "server", f"{address}: it refuses us: {said}")


def _without_arguments(error: ServerError) -> str:
    return str(error).partition(", with args")[0]  # which may have the password


async def _hung_up(error: BaseException, address: Address, setting: str) -> Finding:
    if address.scheme == "rediss" and (ending := await _ending_of_tls(address)) is not None:
        certain = any(isinstance(cause, ssl.SSLError) and "certificate" in str(cause) for cause in _causes(ending))
        text = f"{address}: it wants to see a certificate of ours, and does not accept what it sees"
        if not certain:
            text = f"{address}: it ends the connection after the TLS handshake: it wants to see a certificate of ours, "
            text += "or what is behind it is down"
        fix = f"append ?ssl_certfile=/path/to/app.pem&ssl_keyfile=/path/to/app.key to {setting}"
        return Finding(Level.PROBLEM, "tls", text, fix)
    if await _speaks_tls(address):
        text = f"{address}: the server speaks TLS on this port"
        return Finding(Level.PROBLEM, "tls", text, f"write rediss:// instead of redis:// in {setting}")
    text = f"{address}: it ends the connection, or what answers there is no Redis: {describe(error)}"
    return Finding(Level.PROBLEM, "server", text, f"correct host and port in {setting}")


# -- what else could it be? -------------------------------------------------------------------------------------------


async def _speaks_plain(address: Address) -> bool:
    with trio.move_on_after(CONNECT_TIMEOUT), suppress(OSError, trio.BrokenResourceError):
        async with await trio.open_tcp_stream(address.host, address.port) as stream:
            await stream.send_all(b"PING\r\n")
            return (await stream.receive_some())[:1] in {b"+", b"-"}
    return False


async def _speaks_tls(address: Address) -> bool:
    if address.scheme != "redis":
        return False
    anybody = ssl.create_default_context()
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    with trio.move_on_after(CONNECT_TIMEOUT), suppress(OSError, trio.BrokenResourceError):
        async with await trio.open_ssl_over_tcp_stream(
            address.host, address.port, ssl_context=anybody, https_compatible=True
        ) as stream:
            await stream.do_handshake()
            return True
    return False


async def _ending_of_tls(address: Address) -> Exception | None:
    """Why the connection ends although nothing was sent, if it does.

    In TLS 1.3 a server refuses certificates after the handshake, and who has written to it by then may not hear why.
    """
    said: object = None
    with trio.move_on_after(CONNECT_TIMEOUT):
        try:
            async with await address.open_stream() as stream:
                said = await stream.receive_some()
        except (OSError, trio.BrokenResourceError) as error:
            return error
    return trio.EndOfChannel() if said == b"" else None
