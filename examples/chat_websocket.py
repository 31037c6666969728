"""A room to chat in: open its page in several browsers, and in several tabs of each.

Who somebody is, what they are called and when they were last seen is in their session. So two tabs of a browser are
one person, and after a reload, or tomorrow, they are still the same. Who is in the room right now is known to one
process: serve it with one. Start it with `python chat_websocket.py --port 8000`, or in your own way, as
`trio-session serve chat_websocket:app`.
"""

import argparse
import os
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from secrets import token_hex
from time import time

import trio
from hypercorn.config import Config

from trio_session.serving import run
from trio_session.web import App, Request, WebSocket, WebSocketClosed

app = App()


@dataclass
class Person:
    """Somebody who is in the room, or was within the last hour."""

    name: str
    seen: float
    tabs: set[trio.MemorySendChannel[object]] = field(default_factory=set[trio.MemorySendChannel[object]])

    def tell(self, message: object) -> None:
        """Send something to their tabs. One that reads too slowly misses it: nobody has to wait for that."""
        for tab in self.tabs:
            with suppress(trio.WouldBlock):
                tab.send_nowait(message)


room: dict[str, Person] = {}  # by what is "person" in their sessions: an id is a credential, and may change
lines = deque[object](maxlen=50)  # what was said last


def tell_all(message: object) -> None:
    """Send something to every tab of everybody."""
    for person in room.values():
        person.tell(message)


def tell_who_is_here() -> None:
    """Send the list of people to everybody."""
    for key in [key for key, person in room.items() if not person.tabs and person.seen < time() - 3600]:
        del room[key]
    tell_all({"people": [{"name": p.name, "seen": p.seen, "tabs": len(p.tabs)} for p in room.values()]})


@app.websocket("/room")  # pages of other sites are refused, or they could speak in the visitor's name
async def enter(ws: WebSocket) -> None:
    """Serve one tab, until it is closed."""
    async with ws.session.locked() as data:  # before accept(), as a new visitor's cookie goes with it
        key = data.setdefault("person", token_hex(8))
        name = data.setdefault("name", f"Guest {key[:3]}")
        last_seen = data.get("seen")
        data["seen"] = time()
    await ws.accept()
    person = room.setdefault(key, Person(name, time()))
    tab, messages = trio.open_memory_channel[object](100)
    tab.send_nowait({"you": name, "lastSeen": last_seen, "lines": list(lines)})

    async def pass_on() -> None:
        async for message in messages:
            await ws.send_json(message)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pass_on)
        person.tabs.add(tab)
        try:
            tell_who_is_here()
            with suppress(WebSocketClosed):
                while True:  # no lock is held while nobody says anything
                    await hear(ws, person, await ws.receive_json())
        finally:  # also when the server stops
            person.tabs.remove(tab)
            person.seen = time()
            tell_who_is_here()
        nursery.cancel_scope.cancel()
    await ws.session.put("seen", person.seen)


async def hear(ws: WebSocket, person: Person, message: object) -> None:
    """Do what a tab asks for."""
    match message:
        case {"say": str(text)} if text.strip():
            async with ws.session.locked() as data:  # what other tabs have stored in the meantime is in it
                data["said"] = data.get("said", 0) + 1
                data["seen"] = time()
            line = {"by": data["name"], "number": data["said"], "at": data["seen"], "text": text[:500]}
            lines.append(line)
            tell_all({"lines": [line]})
        case {"name": str(name)} if name.strip():
            await ws.session.put("name", name.strip()[:30])
            person.name = ws.session["name"]
            person.tell({"you": person.name})
            tell_who_is_here()
        case _:
            pass  # nothing that our page would say


@app.get("/")
async def page(request: Request) -> str:
    """The browser's half."""
    return PAGE


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Room</title>
<link rel="icon" href="data:,">
<style>
  body { font: 1rem/1.5 system-ui; max-width: 40rem; margin: auto; padding: 1rem }
  input, button { font: inherit; padding: .3rem .5rem } #text { width: 70% } .gone { opacity: .6 }
</style>
<h1>Room</h1>
<label>You are <input id="you" maxlength="30"></label> <span id="seen"></span>
<ul id="people" aria-label="Who is here"></ul>
<ol id="lines" aria-live="polite"></ol>
<form><input id="text" maxlength="500" aria-label="What you say" autofocus> <button>Say</button></form>
<script>
  const [you, seen, people, lines, form, text] = document.querySelectorAll("#you, #seen, #people, #lines, form, #text")
  const clock = seconds => new Date(seconds * 1000).toLocaleString()
  const item = words => Object.assign(document.createElement("li"), { textContent: words })
  let ws
  function enter() {
    ws = new WebSocket(location.origin.replace("http", "ws") + "/room")  // the cookie goes along by itself
    ws.onopen = () => lines.replaceChildren()
    ws.onclose = () => setTimeout(enter, 1000)
    ws.onmessage = event => {
      const news = JSON.parse(event.data)
      if (news.you) you.value = news.you
      if (news.lastSeen) seen.textContent = "You were here last on " + clock(news.lastSeen) + "."
      for (const line of news.lines ?? []) lines.append(item(`${line.by}: ${line.text}`))
      if (news.people) people.replaceChildren(...news.people.map(({ name, tabs, seen }) => Object.assign(
        item(tabs ? `${name} is here` : `${name} was last seen on ${clock(seen)}`), { className: tabs ? "" : "gone" })))
    }
  }
  you.onchange = () => ws.send(JSON.stringify({ name: you.value }))
  form.onsubmit = event => { event.preventDefault(); ws.send(JSON.stringify({ say: text.value })); form.reset() }
  enter()
</script>
"""


def main() -> None:
    """Serve the room until Ctrl-C."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", default=os.environ.get("PORT", "8000"), help="0 for a free one")
    config = Config.from_mapping(bind=f"127.0.0.1:{parser.parse_args().port}", loglevel="WARNING")
    run(app, config, announce=lambda urls: print(urls[0], flush=True))


if __name__ == "__main__":
    main()
