"""What encryption at rest adds to a session, in this process: no server, no sockets, the local store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

from trio_session import Codec, EncryptedCodec, MsgpackCodec, SessionConfig, SessionManager, open_session_manager

from ._harness import Comparison, Operation, given
from .bench_session import DATA

_CODECS: Mapping[str, Codec] = {"plain": MsgpackCodec(), "encrypted": EncryptedCodec([EncryptedCodec.new_key()])}


def _there_and_back(codec: Codec, data: dict[str, Any]) -> None:
    codec.decode(codec.encode(data, context=b"Ab:here"), context=b"Ab:here")


def _codecs_at(size: int) -> dict[str, Operation]:
    data = {**DATA, "note": "x" * size}
    return {name: partial(_there_and_back, codec, data) for name, codec in _CODECS.items()}


@asynccontextmanager
async def _open_managers() -> AsyncIterator[dict[str, Operation]]:
    async with AsyncExitStack() as stack:
        managers = {
            name: await stack.enter_async_context(open_session_manager(SessionConfig(codec=codec)))
            for name, codec in _CODECS.items()
        }
        yield {name: await _count_in(manager) for name, manager in managers.items()}


async def _count_in(manager: SessionManager) -> Callable[[], Any]:
    session = manager.session()
    async with session.locked() as data:
        data.update(DATA)

    async def count() -> None:
        async with manager.session(session.id).locked() as data:
            data["visits"] = data.get("visits", 0) + 1

    return count


COMPARISONS = (
    Comparison(name="a locked change, encrypted", open=_open_managers),
    Comparison(name="a record of 0.3 kB there and back, encrypted", open=given(_codecs_at(220))),
    Comparison(name="a record of 20 kB there and back, encrypted", open=given(_codecs_at(20_000))),
)
