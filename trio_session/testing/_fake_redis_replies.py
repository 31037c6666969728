"""What a Redis server says: its kinds of replies, and how they look on the wire. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypeAlias

__all__ = ["OK", "Answer", "CommandError", "Several", "Status", "encode", "to_int"]


class Status(bytes):
    """A short word, as opposed to data: `+OK`."""

    __slots__ = ()


class CommandError(Exception):
    """A command was refused. As Redis has it, an error is an answer too, and may be a part of one.

    Args:
        text: as it stands on the wire, beginning with a code word.
    """

    def __init__(self, text: str | bytes) -> None:
        self.text = text.encode() if isinstance(text, str) else text
        super().__init__(self.text.decode("utf-8", "replace"))


class Several(tuple["Answer", ...]):
    """More than one answer to one command, as SUBSCRIBE gives them."""

    __slots__ = ()


Answer: TypeAlias = "bytes | int | list[Answer] | CommandError | None"

OK: Final = Status(b"OK")

_INT_MAX: Final = 2**63


def encode(answer: Answer | Several) -> bytes:
    """The bytes of an answer in RESP2."""
    match answer:
        case None:
            return b"$-1\r\n"
        case Status():
            return b"+%b\r\n" % answer
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(answer), answer)
        case int():
            return b":%d\r\n" % answer
        case CommandError():
            return b"-%b\r\n" % answer.text.replace(b"\r", b" ").replace(b"\n", b" ")
        case Several():
            return _encode_all(answer)
        case _:
            return b"*%d\r\n" % len(answer) + _encode_all(answer)


def _encode_all(answers: Iterable[Answer]) -> bytes:
    return b"".join(map(encode, answers))


def to_int(text: bytes, refusal: str = "ERR value is not an integer or out of range") -> int:
    """Read an integer as strictly as Redis does: no plus, no spaces, no leading zeros, 64 bits."""
    try:
        number = int(text)
    except ValueError:
        raise CommandError(refusal) from None
    if b"%d" % number != text or not -_INT_MAX <= number < _INT_MAX:
        raise CommandError(refusal)
    return number
