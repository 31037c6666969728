"""Forms: what browsers send, what attackers send, and the limits between them."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
import trio
from hypothesis import given, strategies as st
from werkzeug.datastructures import FileStorage

from trio_session.web import App, HTTPException, Request
from trio_session.web._forms import parse_multipart

from .web_peer import Peer, ask

URLENCODED = [("Content-Type", "application/x-www-form-urlencoded")]
MULTIPART = [("Content-Type", "multipart/form-data; boundary=AaB03x")]


@pytest.fixture
def app() -> App:
    """An App that shows forms."""
    app = App(sessions=False)

    @app.post("/")
    async def show(request: Request) -> dict[str, object]:
        form, files = await request.form, await request.files
        assert await request.form is form
        return {
            "form": form.to_dict(flat=False),
            "files": [
                [name, file.filename, file.content_type, file.read().decode()] for name, file in files.items(multi=True)
            ],
        }

    return app


def part(name: str, body: str | bytes, *, filename: str | None = None, content_type: str | None = None) -> bytes:
    """One part of a form, with the boundary before it."""
    head = f'--AaB03x\r\nContent-Disposition: form-data; name="{name}"'
    if filename is not None:
        head += f'; filename="{filename}"'
    if content_type is not None:
        head += f"\r\nContent-Type: {content_type}"
    return head.encode() + b"\r\n\r\n" + (body if isinstance(body, bytes) else body.encode()) + b"\r\n"


END = b"--AaB03x--\r\n"


async def test_urlencoded(app: App) -> None:
    """The plain form of a page, with its blanks and its repetitions."""
    answer = await ask(app, method="POST", headers=URLENCODED, body=b"a=1&a=2&b=&c=%C3%A9+x")
    assert answer.json() == {
        "form": {"a": ["1", "2"], "b": [""], "c": ["\N{LATIN SMALL LETTER E WITH ACUTE} x"]},
        "files": [],
    }


async def test_multipart(app: App) -> None:
    """Fields and files, however the bytes are cut into chunks."""
    body = (
        b"preamble\r\n"
        + part("a", "1")
        + part("a", "caf\N{LATIN SMALL LETTER E WITH ACUTE}")
        + part("l", b"\xe9", content_type="text/plain; charset=ISO-8859-1")
        + part("u", "x", content_type="text/plain; charset=utf-7")
        + part("f", "content\r\nof file", filename="a.txt", content_type="text/plain")
        + part("f", "", filename="", content_type="application/octet-stream")
        + END
    )
    accented = "\N{LATIN SMALL LETTER E WITH ACUTE}"
    expected = {
        "form": {"a": ["1", f"caf{accented}"], "l": [accented], "u": ["x"]},
        "files": [
            ["f", "a.txt", "text/plain", "content\r\nof file"],
            ["f", "", "application/octet-stream", ""],
        ],
    }
    for size in (1, 7, len(body)):
        peer = Peer(app, method="POST", headers=MULTIPART, body=None)
        for start in range(0, len(body), size):
            peer.say_body(body[start : start + size], more=True)
        peer.say_body(b"")
        await peer.run()
        assert peer.json() == expected


async def test_what_is_no_form_is_an_empty_form(app: App) -> None:
    """As in Flask; the body stays unread."""
    for headers in ([], [("Content-Type", "text/plain")]):
        answer = await ask(app, method="POST", headers=headers, body=b"a=1")
        assert answer.json() == {"form": {}, "files": []}


async def test_the_body_of_a_form(app: App) -> None:
    """A urlencoded one is kept; one with files is not, unless it was read before."""

    @app.post("/body/<when>")
    async def body(request: Request, when: str) -> str:
        if when == "before":
            await request.get_data()
        form = await request.form
        return f"{form['a']} {len(await request.get_data())}"

    @app.errorhandler(RuntimeError)
    async def explain(request: Request, error: RuntimeError) -> str:
        return str(error)

    urlencoded, multipart = b"a=1", part("a", "1") + END
    assert (await ask(app, "/body/after", method="POST", headers=URLENCODED, body=urlencoded)).text == "1 3"
    answer = await ask(app, "/body/before", method="POST", headers=MULTIPART, body=multipart)
    assert answer.text == f"1 {len(multipart)}"
    answer = await ask(app, "/body/after", method="POST", headers=MULTIPART, body=multipart)
    assert answer.text == "the body of this request is gone: it was read as a form"


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/x-www-form-urlencoded", b"a=%FF"),
        ("application/x-www-form-urlencoded", b"\xff"),
        ("multipart/form-data", part("a", "1") + END),
        ("multipart/form-data; boundary=", part("a", "1") + END),
        ('multipart/form-data; boundary="\N{LATIN SMALL LETTER E WITH ACUTE}"', part("a", "1") + END),
        ("multipart/form-data; boundary=AaB03x", b""),
        ("multipart/form-data; boundary=AaB03x", b"nothing of the kind"),
        ("multipart/form-data; boundary=AaB03x", part("a", "1")),
        ("multipart/form-data; boundary=AaB03x", part("f", "1", filename="f")[:-5]),
        ("multipart/form-data; boundary=AaB03x", part("a", b"\xff") + END),
        ("multipart/form-data; boundary=AaB03x", b"--AaB03x\r\n\r\n1\r\n" + END),
        ("multipart/form-data; boundary=AaB03x", b"--AaB03x\r\nContent-Disposition: form-data\r\n\r\n1\r\n" + END),
        ("multipart/form-data; boundary=AaB03x", part("\N{SNOWMAN}", "1").replace(b"\xe2\x98\x83", b"\xff") + END),
    ],
)
async def test_malformed_forms_are_400(app: App, content_type: str, body: bytes) -> None:
    """Undecodable, cut off, without a name: the client's fault, each time it is asked for."""

    @app.post("/twice")
    async def twice(request: Request) -> str:
        with pytest.raises(HTTPException):
            await request.form
        return str(await request.form)

    for path in ("/", "/twice"):
        peer = Peer(app, path, method="POST", body=body)
        peer.scope["headers"].append((b"content-type", content_type.encode("latin-1")))
        await peer.run()
        assert peer.status == 400


@given(data=st.data())
def test_no_form_is_a_500(data: st.DataObject) -> None:
    """Whatever the bytes are: a form, or 400, or 413."""
    words = [b"--AaB03x", b"--", b"\r\n", b"\n", b"\r", b"\r\n\r\n", b":", b"x", b"\xff", END]
    heads = [b"Content-Disposition: form-data", b"Content-Type: text/plain; charset=ascii", b"Content-Type:"]
    names = [b'; name="a"', b'; filename="b"', b"; name*=utf-8''%ff", b"; name*=x''a", b' name="\\"']
    pieces = st.sampled_from([*words, *heads, *names, part("a", "1"), part("f", "x" * 50, filename="n")])
    chunks = data.draw(st.lists(st.lists(pieces, max_size=6).map(b"".join), max_size=6))
    chunks = [chunk for chunk in chunks if chunk]

    async def read() -> bytes:
        return chunks.pop(0) if chunks else b""

    async def parse() -> None:
        try:
            form = await parse_multipart(read, "AaB03x", max_memory=100, max_parts=5)
        except HTTPException as error:
            assert error.code in {400, 413}  # noqa: PT017
        else:
            form.close()

    trio.run(parse)


@given(
    contents=st.lists(
        st.lists(st.sampled_from([b"\r", b"\n", b"-", b" ", b"--AaB03", b"x"])).map(b"".join), max_size=3
    ),
    padding=st.sampled_from([b"", b" ", b" \t "]),
    cuts=st.lists(st.integers(1, 40), min_size=1),
)
def test_chunks_are_cut_anywhere(contents: list[bytes], padding: bytes, cuts: list[int]) -> None:
    """Files come out byte for byte, wherever the network cuts them, also in the midst of what stands between them."""
    contents = [content for content in contents if b"--AaB03x" not in content]
    body = b"".join(part("f", content, filename="f") for content in contents) + END
    body = body.replace(b"--AaB03x\r", b"--AaB03x%s\r" % padding)

    async def read() -> bytes:
        nonlocal body
        cuts.append(cuts.pop(0))
        chunk, body = body[: cuts[-1]], body[cuts[-1] :]
        return chunk

    async def parse() -> None:
        form = await parse_multipart(read, "AaB03x", max_memory=None, max_parts=None)
        assert [file.read() for file in form.files.getlist("f")] == contents
        form.close()

    trio.run(parse)


async def test_fields_together_have_a_limit(app: App) -> None:
    """They are kept in memory, so many small ones count like a large one; files do not count."""
    app.max_form_memory_size = 10
    fields = part("a", "12345") + part("b", "12345")
    answer = await ask(app, method="POST", headers=MULTIPART, body=fields + part("f", "x" * 50, filename="f") + END)
    assert answer.json()["form"] == {"a": ["12345"], "b": ["12345"]}
    for body in (fields + part("c", "6") + END, part("a", "12345678901") + END):
        assert (await ask(app, method="POST", headers=MULTIPART, body=body)).status == 413
    assert (await ask(app, method="POST", headers=URLENCODED, body=b"a=12345678")).status == 200
    for headers in (URLENCODED, [*URLENCODED, ("Content-Length", "11")]):
        assert (await ask(app, method="POST", headers=headers, body=b"a=123456789")).status == 413
    app.max_form_memory_size = None
    assert (await ask(app, method="POST", headers=URLENCODED, body=b"a=123456789")).status == 200
    assert (await ask(app, method="POST", headers=MULTIPART, body=fields + part("c", "6") + END)).status == 200


async def test_headers_of_a_part_have_a_limit(app: App) -> None:
    """They are collected in memory too."""
    app.max_form_memory_size = 10
    body = b"--AaB03x\r\nContent-Disposition: form-data; name=" + b"x" * 100_000
    assert (await ask(app, method="POST", headers=MULTIPART, body=body)).status == 413


async def test_forms_have_a_limit_of_parts(app: App) -> None:
    """Thousands of tiny fields cost more than their bytes."""
    app.max_form_parts = 3
    for body, status in [(b"a=1&b=2&c=3", 200), (b"a=1&b=2&c=3&d", 413)]:
        assert (await ask(app, method="POST", headers=URLENCODED, body=body)).status == status
    for count, status in [(3, 200), (4, 413)]:
        body = part("a", "1") * count + END
        assert (await ask(app, method="POST", headers=MULTIPART, body=body)).status == status
    app.max_form_parts = None
    assert (await ask(app, method="POST", headers=URLENCODED, body=b"&".join([b"a=1"] * 2000))).status == 200


async def test_the_body_of_a_form_has_a_limit(app: App) -> None:
    """`max_content_length`, files included."""
    app.max_content_length = 200
    body = part("f", "x" * 200, filename="f") + END
    assert (await ask(app, method="POST", headers=MULTIPART, body=body)).status == 413


async def test_files_are_closed_with_the_request(app: App) -> None:
    """Large ones live on the disk until then, and a form that fails midway leaves none behind."""
    kept: list[FileStorage] = []

    @app.post("/keep")
    async def keep(request: Request) -> str:
        files = await request.files
        kept.extend(files.values())
        assert not kept[0].stream.closed
        return str(len(kept[0].read()))

    large = part("f", b"x" * 600_000, filename="large")
    answer = await ask(app, "/keep", method="POST", headers=MULTIPART, body=large + END)
    assert answer.text == "600000"
    assert kept[0].stream.closed
    # A ResourceWarning would be an error here.
    for broken in (large, large + part("a", b"\xff") + END, large[:-600]):
        assert (await ask(app, "/keep", method="POST", headers=MULTIPART, body=broken)).status == 400


async def test_two_tasks_may_ask_for_the_form(app: App) -> None:
    """They get the same one."""
    got: list[object] = []

    @app.post("/both")
    async def both(request: Request) -> str:
        async def fields() -> None:
            got.append(await request.form)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fields)
            nursery.start_soon(fields)
        return "ok"

    await ask(app, "/both", method="POST", headers=MULTIPART, body=part("a", "1") + END)
    assert got[0] is got[1]


async def test_files_can_be_saved(app: App) -> None:
    """With Werkzeug's `save`, in a thread."""
    saved = io.BytesIO()

    @app.post("/save")
    async def save(request: Request) -> str:
        file = (await request.files)["f"]
        store: Callable[[io.BytesIO], None] = file.save
        await trio.to_thread.run_sync(store, saved)
        return "saved"

    await ask(app, "/save", method="POST", headers=MULTIPART, body=part("f", "content", filename="f") + END)
    assert saved.getvalue() == b"content"
