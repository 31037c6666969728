"""Logging in: the id changes, the cart stays, and logging out leaves nothing behind.

Start it with `python login.py --port 8000` or `trio-session serve login:app`, open the page, and watch the cookie while
you log in. No token in the forms: the cookie is SameSite=Lax, so the forms of other sites come without it.
"""

import argparse
import os
from hmac import compare_digest
from html import escape

from hypercorn.config import Config

from trio_session.serving import run
from trio_session.web import App, Request, Response, abort, redirect

PASSWORD = "open sesame"
PAGE = """<!doctype html><title>Shop</title><h1>Hello, {user}</h1><p>In your cart: {cart}</p>
<form method=post action=/cart><input name=item required placeholder="a thing"><button>Add to cart</button></form>
<form method=post action=/login><input name=user required><input name=password type=password><button>Log in</button>
</form><form method=post action=/logout><button>Log out</button></form>"""

app = App()


@app.get("/")
async def shop(request: Request) -> str:
    """Show who is there, and what is in the cart."""
    cart = request.session.get("cart", ["nothing"])  # neither locks nor waits: it was loaded before we were called
    return PAGE.format(user=escape(request.session.get("user", "stranger")), cart=escape(", ".join(cart)))


@app.post("/cart")
async def add_to_cart(request: Request) -> Response:
    """Put a thing into the cart of whoever it is, stranger or not."""
    form = await request.form  # before the lock: a slow client must not keep the others waiting
    async with request.session.locked() as data:
        data.setdefault("cart", []).append(form["item"])  # changes deep inside are noticed too
    return redirect("/", 303)


@app.post("/login")
async def log_in(request: Request) -> Response:
    """Make a stranger somebody."""
    form = await request.form
    if not compare_digest(form["password"].encode(), PASSWORD.encode()):
        abort(403, "That is not the password.")
    async with request.session.locked() as data:
        data["user"] = form["user"]
        request.session.regenerate()  # whoever planted or overheard the old id has nothing: it is dead at once
    return redirect("/", 303)


@app.post("/logout")
async def log_out(request: Request) -> Response:
    """Forget everything."""
    await request.session.clear()  # the record is gone, for other requests too; the cookie goes with this response
    return redirect("/", 303)


def main() -> None:
    """Serve the application until Ctrl-C."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", default=os.environ.get("PORT", "8000"), help="0 for a free one")
    config = Config.from_mapping(bind=f"127.0.0.1:{parser.parse_args().port}", loglevel="WARNING")
    run(app, config, announce=lambda urls: print(urls[0], flush=True))


if __name__ == "__main__":
    main()
