"""What all sessions of one manager share."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

from ._config import SessionConfig
from ._errors import SessionDataError
from ._ids import Ids
from ._locks import Locks
from ._places import Place
from .abc import Codec, Lifetime, SessionStore

__all__ = ["Engine"]

logger = logging.getLogger("trio_session")


@dataclass(slots=True)
class Engine:
    """Store, locks, codec and ids, and whether the manager is still open."""

    config: SessionConfig
    store: SessionStore
    locks: Locks
    codec: Codec
    ids: Ids
    closed: bool = False
    reported: set[Place] = field(default_factory=set[Place])  # lines that were warned of, which is done once
    life: Lifetime = field(init=False)

    def __post_init__(self) -> None:
        self.life = self.config.life

    def decode(self, blob: bytes, id: str) -> dict[str, Any]:
        return self.decode_under(self.ids.key(id), blob)

    def decode_under(self, key: str, blob: bytes) -> dict[str, Any]:
        try:
            return self.codec.decode(blob, context=key.encode())
        except SessionDataError:
            if self.config.undecodable == "raise":
                raise
            logger.warning("a session record that cannot be decoded reads as empty (undecodable='discard')")
            return {}
