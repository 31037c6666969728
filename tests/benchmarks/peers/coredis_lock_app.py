"""coredis's `Lock` around GET and SET, on Trio: what one writes by hand there."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import coredis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from ._setting import NOTE, REDIS, TTL

client = coredis.Redis.from_url(REDIS, decode_responses=True)


async def _load(id: str) -> dict[str, Any]:
    blob = await client.get(f"coredis-lock:{id}")
    data: dict[str, Any] = json.loads(blob) if blob else {}
    return data


async def bare(request: Request) -> JSONResponse:
    return JSONResponse({"visits": 1})


async def read(request: Request) -> JSONResponse:
    data = await _load(request.cookies.get("sid", ""))
    return JSONResponse({"visits": data.get("visits", 0)})


async def change(request: Request) -> JSONResponse:
    known = request.cookies.get("sid")
    id = known or uuid.uuid4().hex
    async with client.lock(f"coredis-lock:{id}:lock", timeout=5):
        data = await _load(id)
        data["visits"] = data.get("visits", 0) + 1
        data["note"] = NOTE
        await client.set(f"coredis-lock:{id}", json.dumps(data), ex=TTL)
    response = JSONResponse({"visits": data["visits"]})
    if known is None:
        response.set_cookie("sid", id)
    return response


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    async with client:
        yield


app = Starlette(
    routes=[Route("/bare", bare), Route("/read", read), Route("/change", change)],
    lifespan=_lifespan,
)
