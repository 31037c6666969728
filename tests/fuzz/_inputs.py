"""What to try: a corpus, and what becomes of it when it is broken at random."""

from __future__ import annotations

import ast
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults._harness import amount

__all__ = ["Breaker", "corpus", "examples", "inputs", "trying"]

_CORPUS = Path(__file__).parent / "corpus"

# Of each kind: ten thousand together; and a hundred times as many in `make soak`. Those on a real server take longer.
_SHARES = {"cookies": 2700, "queries": 2700, "forms": 2700, "replies": 1700, "frames": 200}
_TIMES = amount(1, 10, 100)


def examples(kind: str) -> int:
    """How many examples Hypothesis is to try: a tenth of all."""
    return _SHARES[kind] * _TIMES // 10


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


def inputs(kind: str, words: list[bytes], more: list[bytes] | None = None) -> tuple[Breaker, Iterator[bytes]]:
    """The corpus as it is, and then broken; from the seed of the whole test run, so `--randomly-seed` repeats it."""
    seeds = corpus(kind) + (more or [])
    breaker = Breaker(random.randrange(2**32), seeds, words)

    def stream() -> Iterator[bytes]:
        yield from seeds
        for _ in range(_SHARES[kind] * _TIMES - examples(kind) - len(seeds)):
            yield breaker.broken()

    return breaker, stream()


@contextmanager
def trying(data: bytes) -> Iterator[None]:
    """Whatever goes wrong inside says with which input."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"The input was: {data!r}")
        raise
