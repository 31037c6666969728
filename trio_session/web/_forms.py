"""Forms, urlencoded and multipart. What cannot be decoded is the client's fault, so it is a 400."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from tempfile import SpooledTemporaryFile
from typing import IO, cast, final
from urllib.parse import parse_qsl

from werkzeug.datastructures import FileStorage, ImmutableMultiDict, MultiDict
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge
from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import Data, Epilogue, Event, Field, File, MultipartDecoder, NeedData

__all__ = ["FormParts", "parse_multipart", "parse_query"]

# Files up to this size stay in memory. The disk is written to without a thread: the bytes are in the memory of the
# operating system at once, and a change of threads takes longer than that.
_SPOOL_BYTES = 500 * 1024

# The decoder takes its limit for the size of what it is given at a time as well: so it is given a little at a time.
_SLICE_BYTES = 16 * 1024

# Charsets that are decoded; anything else is read as UTF-8, which is what browsers send.
_CHARSETS = frozenset({"ascii", "us-ascii", "utf-8", "iso-8859-1"})


@dataclass(frozen=True, slots=True)
class FormParts:
    """The fields and the files of a form."""

    fields: MultiDict[str, str] = field(default_factory=ImmutableMultiDict[str, str])
    files: MultiDict[str, FileStorage] = field(default_factory=ImmutableMultiDict[str, FileStorage])

    def close(self) -> None:
        """Close the files, and so remove them."""
        for name in self.files:
            for storage in self.files.getlist(name):
                storage.close()


def parse_query(query: bytes, *, what: str, max_fields: int | None = None) -> MultiDict[str, str]:
    """Parse `a=1&b=2`.

    Raises:
        BadRequest: it is not UTF-8; `what` says what "it" is.
        RequestEntityTooLarge: it has more than `max_fields` fields.
    """
    if max_fields is not None and query.count(b"&") >= max_fields:
        raise RequestEntityTooLarge
    try:
        pairs = parse_qsl(query.decode(), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        raise BadRequest(f"{what} is not UTF-8.") from None
    return ImmutableMultiDict(pairs)


async def parse_multipart(
    read: Callable[[], Awaitable[bytes]], boundary: str, *, max_memory: int | None, max_parts: int | None
) -> FormParts:
    """Parse a form with files.

    Args:
        read: gives the next bytes; none at the end.
        boundary: from the content type.
        max_memory: bytes of all fields together, and of the headers of one part.
        max_parts: how many fields and files.

    Raises:
        BadRequest: it is malformed, or a field is not text.
        RequestEntityTooLarge: a limit is passed.
    """
    try:
        collector = _Collector(boundary.encode("ascii"), max_memory, max_parts)
    except UnicodeEncodeError:
        raise BadRequest("The boundary of the form is not ASCII.") from None
    done = False
    try:
        while chunk := await read():
            collector.feed(chunk)
        collector.finish()
        done = True
    except ValueError:  # whatever Werkzeug finds wrong, undecodable fields included
        raise BadRequest("The form is malformed.") from None
    finally:
        if not done:
            collector.close()
    return FormParts(ImmutableMultiDict(collector.fields), ImmutableMultiDict(collector.files))


@final
class _Collector:
    """Puts the parts of a form together again."""

    def __init__(self, boundary: bytes, max_memory: int | None, max_parts: int | None) -> None:
        self.fields: list[tuple[str, str]] = []
        self.files: list[tuple[str, FileStorage]] = []
        limit = None if max_memory is None else max_memory + 2 * _SLICE_BYTES
        self._decoder = MultipartDecoder(boundary, max_form_memory_size=limit, max_parts=max_parts)
        self._open_end = re.compile(rb"--%s([- \t]+)\Z" % re.escape(boundary))
        self._end_length = len(boundary) + 20
        self._held_back = b""
        self._room = max_memory  # bytes left for fields
        self._part: Field | File | None = None
        self._text = bytearray()
        self._file: IO[bytes] | None = None

    def feed(self, chunk: bytes) -> None:
        for start in range(0, len(chunk), _SLICE_BYTES):
            data = self._held_back + chunk[start : start + _SLICE_BYTES]
            # The decoder must not see a boundary with half of what may follow it: at `--boundary-` it takes the CR
            # before the boundary for data, and a file gets a byte that it never had (pallets/werkzeug#3285).
            seen = bytes(self._decoder.buffer[-self._end_length :]) + data
            found = self._open_end.search(seen[-self._end_length :])
            self._held_back = found[1] if found else b""
            self._decode(data.removesuffix(self._held_back))

    def _decode(self, data: bytes | None) -> None:
        self._decoder.receive_data(data)
        while not isinstance(event := self._decoder.next_event(), NeedData | Epilogue):
            self._take(event)

    def finish(self) -> None:
        self._decode(self._held_back)
        self._decode(None)

    def close(self) -> None:
        """Close the files, also one that is not complete."""
        if self._file is not None:
            self._file.close()
        for _, storage in self.files:
            storage.close()

    def _take(self, event: Event) -> None:
        match event:
            case File() | Field():
                self._begin(event)
            case Data():
                self._add(event.data)
                if not event.more_data:
                    self._end()
            case _:
                pass  # what stands before the first part means nothing

    def _begin(self, part: Field | File) -> None:
        # Werkzeug says that it is a str, but a part without a name has None.
        if not isinstance(cast("str | None", part.name), str):
            raise ValueError("a part has no name")  # noqa: TRY004  # like all that is wrong with a form
        self._part = part
        if isinstance(part, File):
            # Closed with the request, or with the Collector if it gets no further.
            self._file = cast("IO[bytes]", SpooledTemporaryFile(_SPOOL_BYTES))  # noqa: SIM115

    def _add(self, data: bytes) -> None:
        if self._file is not None:
            self._file.write(data)
            return
        if self._room is not None:
            self._room -= len(data)
            if self._room < 0:
                raise RequestEntityTooLarge
        self._text += data

    def _end(self) -> None:
        part = self._part
        assert part is not None
        if isinstance(part, File):
            file, self._file = self._file, None
            assert file is not None
            file.seek(0)
            self.files.append((part.name, FileStorage(file, part.filename, part.name, headers=part.headers)))
        else:
            self.fields.append((part.name, self._text.decode(_charset(part))))
            self._text.clear()


def _charset(part: Field) -> str:
    charset = parse_options_header(part.headers.get("Content-Type"))[1].get("charset", "").lower()
    return charset if charset in _CHARSETS else "utf-8"
