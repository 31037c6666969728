"""A room to chat in, over WebSockets that know whom they talk to.

Start it with `python chat_websocket.py serve --port 8000` or `hypercorn -k trio chat_websocket:app`, then go in from
other terminals: `python chat_websocket.py talk --port 8000 --name Ada` (this needs trio-websocket).
"""

import argparse
import os
import signal
from contextlib import suppress
from functools import partial
from urllib.parse import quote

import trio
from hypercorn.config import Config
from hypercorn.trio import serve

from trio_session.web import App, WebSocket

app = App()
room: set[trio.MemorySendChannel[str]] = set()  # a channel to everybody who is in


def tell_all(line: str) -> None:
    """Send a line to everybody. Who reads too slowly misses some; nobody has to wait for them."""
    for channel in room:
        with suppress(trio.WouldBlock):
            channel.send_nowait(line)


@app.websocket("/room")  # pages of other sites are refused, or they could speak in the visitor's name
async def enter_room(ws: WebSocket) -> None:
    """Pass on what one visitor says, and what everybody says to them, until they leave."""
    name = ws.args.get("name") or ws.session.get("name", "Somebody")
    await ws.session.put("name", name)  # before accept(), because the cookie goes with its answer
    await ws.accept()
    channel, lines = trio.open_memory_channel[str](100)

    async def pass_on() -> None:
        async for line in lines:
            await ws.send(line)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pass_on)
        room.add(channel)
        try:
            tell_all(f"{name} is here.")
            async for text in ws:
                said = await ws.session.increment("said")  # no lock is held while nobody says anything
                tell_all(f"{name} ({said}): {text!s}")
        finally:  # they have left, or the server stops
            room.remove(channel)
            tell_all(f"{name} has left.")
        nursery.cancel_scope.cancel()


async def talk(url: str) -> None:
    """Send what is typed, and print what comes, until the end of the input or of the server."""
    from trio_websocket import ConnectionClosed, open_websocket_url

    async with open_websocket_url(url) as ws, trio.open_nursery() as nursery:

        async def send_typed() -> None:
            await trio.lowlevel.wait_readable(0)
            while typed := os.read(0, 4096):  # whole lines, as terminals give them
                await ws.send_message(typed.decode().rstrip())
                await trio.lowlevel.wait_readable(0)
            nursery.cancel_scope.cancel()

        nursery.start_soon(send_typed)
        with suppress(ConnectionClosed):
            while True:
                print(await ws.get_message(), flush=True)
        nursery.cancel_scope.cancel()


async def main() -> None:
    """Serve the room until Ctrl-C, or talk in it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["serve", "talk"])
    parser.add_argument("--port", default=os.environ.get("PORT", "8000"), help="0 for a free one")
    parser.add_argument("--name", default="", help="what the others see")
    options = parser.parse_args()
    if options.what == "talk":
        await talk(f"ws://127.0.0.1:{options.port}/room?name={quote(options.name)}")
        return
    # A room is never idle: whoever is still in it when the server stops gets half a second.
    config = Config.from_mapping(bind=f"127.0.0.1:{options.port}", loglevel="WARNING", graceful_timeout=0.5)
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            stop = trio.Event()
            urls = await nursery.start(partial(serve, shutdown_trigger=stop.wait), app, config)
            print(urls[0], flush=True)
            await anext(signals)
            stop.set()


if __name__ == "__main__":
    trio.run(main)
