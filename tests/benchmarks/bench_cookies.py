"""Finding our cookie: on every request, so it has to be cheap, whatever else the browser sends."""

from __future__ import annotations

from http.cookies import SimpleCookie

from trio_session._cookies import candidate_ids

from ._harness import Comparison, Operation, given

_ID = "A" * 48
_OURS = f"trio_session={_ID}"
_OTHERS = "; ".join(f"_ga_{number}=GS1.1.{number}.{number}" for number in range(12))


def _candidates(line: str) -> dict[str, Operation]:
    headers = [
        (b"host", b"example.org"),
        (b"accept", b"text/html"),
        (b"user-agent", b"Mozilla/5.0"),
        (b"cookie", line.encode()),
    ]

    def by_http_cookies() -> list[str]:
        cookies = SimpleCookie()
        for name, value in headers:
            if name == b"cookie":
                cookies.load(value.decode("latin-1"))
        return [cookies["trio_session"].value]

    def by_hand() -> list[str]:
        return candidate_ids(headers, "trio_session")

    assert by_hand() == by_http_cookies() == [_ID]
    return {"http.cookies": by_http_cookies, "candidate_ids": by_hand}


COMPARISONS = (
    Comparison(name="cookie, ours alone", open=given(_candidates(_OURS))),
    Comparison(name="cookie, ours after 12 others", open=given(_candidates(f"{_OTHERS}; {_OURS}"))),
)
