"""What a request knows of its session: under which id, whether it lives, and its last committed data.

Everything here is decided between two awaits; the Session does the asking.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

from ._errors import EndReason
from ._ids import Ids
from .abc import Loaded

__all__ = ["CookieAction", "Known"]


class CookieAction(Enum):
    """What the response is to do with the cookie."""

    NOTHING = "nothing"
    ISSUE = "issue"
    REMOVE = "remove"


class Known:
    """Knowledge, updated by what the store answers.

    Args:
        candidates: the ids the client sent, if they have the right shape; more than one until they are told apart.
        sent: the client sent a cookie of our name, of whatever shape.
        ids: the policy for ids.
        decode: makes data of a record's bytes, given its key.

    Attributes:
        ambiguous: the client sent several ids, and the store has not been asked which of them it knows.
        anchor: the id whose key is locked: the client's, or one that was made for the first commit. An id of the
            client's that the store does not know is dropped, never adopted.
        stored: a living record is known under the anchor.
        ended: why the session of the client's id is no more. It stays once known: not even a tombstone that lapses
            under a slow request may let it set a cookie.
        read: the store has answered.
        epoch: counts the answers, so that one that was overtaken can be told.
    """

    __slots__ = (
        "_blob",
        "_data",
        "_decode",
        "_ids",
        "_keyed",
        "_minted",
        "_removed",
        "_renewed",
        "_sent",
        "_sent_ids",
        "ambiguous",
        "anchor",
        "candidates",
        "ended",
        "epoch",
        "read",
        "stored",
    )

    def __init__(
        self, candidates: tuple[str, ...], *, sent: bool, ids: Ids, decode: Callable[[str, bytes], dict[str, Any]]
    ) -> None:
        self.candidates = candidates
        self.ambiguous = len(candidates) > 1
        self.anchor = candidates[0] if len(candidates) == 1 else None
        self.stored = False
        self.ended: EndReason | None = None
        self.read = False
        self.epoch = 0
        self._sent = sent
        self._sent_ids = candidates
        self._ids = ids
        self._keyed = ("", "")  # the id that was hashed last, and its key
        self._decode = decode
        self._minted = False  # the anchor was made here, and nothing is stored under it yet
        self._renewed = False  # the id is new or its expiry was slid: the browser should hear of it
        self._removed = False  # clear() has ended the session
        self._blob: bytes | None = None
        self._data: dict[str, Any] | None = None

    @property
    def id(self) -> str | None:
        return self.anchor if self.stored else None

    def anchor_or_mint(self) -> str:
        if self.anchor is None:
            self.anchor = self._ids.new()
            self._minted = True
        return self.anchor

    def key(self, id: str) -> str:
        """`Ids.key`, with a memory: one request asks for the same key again and again."""
        if self._keyed[0] != id:
            self._keyed = (id, self._ids.key(id))
        return self._keyed[1]

    def data(self) -> dict[str, Any]:
        """The last committed data. Shared by all readers: it must not be changed."""
        if self._data is None:
            id, blob = self.anchor, self._blob
            self._data = {} if blob is None or id is None else self._decode(self.key(id), blob)
        return self._data

    def adopts(self, loaded: Loaded) -> bool:
        """Whether the anchor may be kept, given what the store says about it."""
        return self._minted or loaded.blob is not None or loaded.ended is not None

    def learn(self, id: str | None, loaded: Loaded) -> None:
        """The store has said what is under `id`."""
        self._set(loaded.blob)
        self.stored = loaded.blob is not None
        if self.stored:
            self.anchor = id
            # Minted, and there is a record: a commit that nobody knew the outcome of has landed.
            self._renewed = self._renewed or loaded.slid or self._minted
            self._minted = False
        elif loaded.ended is not None:
            self.anchor = id
            self.ended = loaded.ended
        elif not self._minted:
            self.anchor = None

    def committed(self, id: str, record: Loaded) -> None:
        """A commit of ours has put `record` under `id`."""
        self._set(record.blob)
        self.anchor = id
        self.stored = self._renewed = True
        self._minted = self._removed = False

    def cleared(self) -> None:
        """A commit of ours has ended the session: this is a new one, without an id."""
        self._set(None)
        self.anchor = None
        self.stored = self._minted = self._renewed = False
        self._removed = True

    @property
    def confirms(self) -> bool:
        """The cookie would only prolong the id that the client sent."""
        return self.stored and self._renewed and self.anchor in self._sent_ids

    def _set(self, blob: bytes | None) -> None:
        self.candidates, self.ambiguous = (), False
        self.read = True
        self.epoch += 1
        if blob != self._blob:  # else what was decoded stays true
            self._blob, self._data = blob, None

    def cookie(self) -> CookieAction:
        if self.stored:
            return CookieAction.ISSUE if self._renewed else CookieAction.NOTHING
        if self.ended is not None:
            # The browser that was not told of a logout is told now; any other may have a newer cookie already.
            return CookieAction.REMOVE if self.ended == "orphaned" else CookieAction.NOTHING
        return CookieAction.REMOVE if self._removed and self._sent else CookieAction.NOTHING
