"""Session ids: how they are made, which are believed, and what a store sees instead of them."""

from __future__ import annotations

import re
import secrets
from base64 import urlsafe_b64encode
from hashlib import sha256

# 36 random bytes are exactly 48 base64url characters, without padding. OWASP ASVS 7.2.3 asks for
# 128 bits; these are 288.
_ID_BYTES = 36
_is_id = re.compile(r"[A-Za-z0-9_-]{48}").fullmatch

# How much of an id its key shows: enough to spread sessions over the slots of a Redis Cluster, and
# so little (12 bits) that 276 secret bits are left.
_SLOT_LENGTH = 2

# 22 base64url characters are 132 bits: two sessions will never share a key.
_DIGEST_LENGTH = 22


class Ids:
    """The policy for session ids.

    An id is a credential: whoever knows it is logged in. So it is long and random, a store only
    ever sees its key, and what does not look like an id is treated as if nothing had been sent.

        ids = Ids()
        id = ids.new()          # goes into the cookie
        key = ids.key(id)       # goes into the store
    """

    def new(self, like: str | None = None) -> str:
        """Make an id that nobody can guess.

        Args:
            like: an id whose first two characters the new one shares. Their keys then live in the
                same slot of a Redis Cluster, so a session can move from one to the other in one
                step.
        """
        fresh = secrets.token_urlsafe(_ID_BYTES)
        if like is None:
            return fresh
        return like[:_SLOT_LENGTH] + fresh[_SLOT_LENGTH:]

    def is_valid(self, id: str) -> bool:
        """Whether this could be an id of ours. What is not is absent, never an error."""
        return _is_id(id) is not None

    def key(self, id: str) -> str:
        """The store's name for the session of a valid id: it leads to the record, never to the id.

        Neither salt nor a slow hash is needed: ids are random, so there is no dictionary to try.
        """
        digest = urlsafe_b64encode(sha256(id.encode()).digest()).decode()
        return f"{id[:_SLOT_LENGTH]}:{digest[:_DIGEST_LENGTH]}"
