"""What to try: a corpus, and what becomes of it when it is broken at random."""

from __future__ import annotations

import ast
import gc
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults._harness import amount

__all__ = ["EXAMPLES", "Breaker", "corpus", "inputs", "parser_inputs", "trying"]

_CORPUS = Path(__file__).parent / "corpus"

# Ten thousand together; and a hundred times as many in `make soak`. What goes through all there is, a request or a
# connection, takes a millisecond or several of them; a parser alone needs a twentieth of that; Hypothesis, five.
_TIMES = amount(1, 10, 100)
_WHOLE = {"cookies": 900, "queries": 900, "forms": 900, "replies": 600, "frames": 200}
_PARSED = {"cookies": 2100, "queries": 2100, "forms": 2000}
EXAMPLES = 75 * _TIMES  # of each of the four that Hypothesis tries

_MOST_GROWTH = 16_000_000  # bytes; a leak of some four hundred bytes for each input is more in `make soak`


def corpus(kind: str) -> list[bytes]:
    """The inputs of `corpus/<kind>.txt`: one a line, as Python writes bytes, with a comment if need be."""
    lines = (_CORPUS / f"{kind}.txt").read_text("utf-8").splitlines()
    return [ast.literal_eval(line) for line in lines if line and not line.startswith("#")]


class Breaker:
    """Breaks inputs. The same seed breaks them in the same way.

    Args:
        seeds: whole inputs.
        words: what may turn up anywhere in one.
    """

    def __init__(self, seed: int, seeds: list[bytes], words: list[bytes]) -> None:
        self.random = random.Random(seed)
        self._seeds = seeds
        self._words = words

    def broken(self) -> bytes:
        """One input, broken in one to four places."""
        data = bytearray(self.random.choice(self._seeds))
        for _ in range(self.random.randint(1, 4)):
            self._break(data)
        return bytes(data[:100_000])

    def _break(self, data: bytearray) -> None:
        a = self.random.randint(0, len(data))
        b = min(len(data), a + int(self.random.expovariate(0.1)))
        match self.random.randrange(7):
            case 0:
                data[a:a] = self.random.choice(self._words)
            case 1:
                data[a:b] = self.random.choice(self._words)
            case 2:
                del data[a:b]
            case 3:
                data[a:a] = data[a:b] * self.random.choice((1, 1, 2, 50))
            case 4:
                data[a:b] = self.random.randbytes(b - a)
            case 5:
                data[a:] = self.random.choice(self._seeds)[-self.random.randint(1, 200) :]
            case _:
                data[a : a + 1] = bytes([self.random.randrange(256)])

    def pieces(self, data: bytes) -> list[bytes]:
        """The input in one piece, or in several."""
        cuts = sorted(self.random.randint(0, len(data)) for _ in range(self.random.choice((0, 0, 1, 3))))
        return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def inputs(kind: str, words: list[bytes]) -> tuple[Breaker, Iterator[bytes]]:
    """The corpus as it is, and then broken; from the seed of the whole test run, so `--randomly-seed` repeats it.

    Whoever takes them all learns whether memory is bounded: the second half must not need more than the first one.
    """
    return _inputs(kind, words, _WHOLE[kind] * _TIMES)


def parser_inputs(kind: str, words: list[bytes]) -> tuple[Breaker, Iterator[bytes]]:
    """The same, and more of them, for the parser alone."""
    return _inputs(kind, words, _PARSED[kind] * _TIMES)


def _inputs(kind: str, words: list[bytes], number: int) -> tuple[Breaker, Iterator[bytes]]:
    seeds = corpus(kind)
    breaker = Breaker(random.randrange(2**32), seeds, words)

    def stream() -> Iterator[bytes]:
        yield from seeds
        before = 0
        for n in range(len(seeds), number):
            if n == number // 2:
                before = _memory_in_use()
            yield breaker.broken()
        growth = _memory_in_use() - before
        assert growth < _MOST_GROWTH, f"memory has grown by {growth} bytes"

    return breaker, stream()


def _memory_in_use() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096  # Linux


@contextmanager
def trying(data: bytes, where: str = "") -> Iterator[None]:
    """Whatever goes wrong inside says with which input, and where that was said."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"The input was: {data!r} {where}")
        raise
