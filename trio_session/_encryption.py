"""Encryption at rest: records that only the holders of a key can read, and only they can make.

An encrypted record is

    4 bytes     "enc1"
    4 bytes     the fingerprint of its key
    16 bytes    the synthetic nonce of AES-SIV, which is its authentication tag too
    the rest    the record of the codec inside, encrypted; as long as it is in plain

AES-SIV (RFC 5297) needs no random nonce, and without one it is deterministic: equal data in equal places gives equal
bytes. That is how changes are found (`Codec`), and with any other cipher each look under the lock would be a write.
What it gives away is that a record has the very content it had before. The head of the record and its name are
authenticated with it: a record that was moved to another session's place is refused.
"""

from __future__ import annotations

import secrets
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, final

from ._codec import ENCRYPTED, MsgpackCodec
from ._errors import SessionDataError
from ._settings import check_choice, check_type, wrong
from .abc import Codec

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESSIV

__all__ = ["EncryptedCodec", "fingerprint_of"]

_KEY: Final = 32  # bytes: what AES-256 can make use of
_CIPHER_KEY: Final = 64  # bytes: AES-SIV takes two keys, one to authenticate and one to encrypt
_FINGERPRINT: Final = 4  # bytes: enough to tell a few keys apart
_HEAD: Final = len(ENCRYPTED) + _FINGERPRINT

_HOW: Final = "32 random bytes in base64, as EncryptedCodec.new_key() or `openssl rand -base64 32` makes them"


@final
class EncryptedCodec(Codec):
    """Encrypts every record, so that a dump, a replica or a backup of the store shows nobody's data.

        config = SessionConfig(driver="redis", codec=EncryptedCodec(keys=[key]), redis=...)

    or `SESSION_KEYS` in the environment. It needs the extra `crypto`: `pip install 'trio_session[crypto]'`.

    The first key encrypts, all of them decrypt. So a key is replaced in three steps: put the new one behind the old
    one, in every process; then before it; and take the old one away when nothing is encrypted with it any more, which
    `trio-session stats` tells. A session moves to the first key when it is committed next, changed or not.

    A record whose key is missing is a `SessionDataError` that says so, and so is one that was altered, or put in
    another session's place. Whoever can write to the store can still remove records, and put back what was in the
    *same* place before.

    Args:
        keys: as `new_key()` makes them.
        codec: makes the bytes that are encrypted; None is `MsgpackCodec`.
        plaintext: what to do with records that are not encrypted. `refuse` them; or, for as long as there are some,
            `read` them: whoever can write to the store can make up such a one. `write` is for the beginning of a
            roll-out: both kinds are read, and plain ones are written, until every process can read encrypted ones.

    Raises:
        ConfigError: a key is not as it should be, or the package `cryptography` is missing. It shows no key.
    """

    def __init__(
        self,
        keys: Sequence[str],
        *,
        codec: Codec | None = None,
        plaintext: Literal["refuse", "read", "write"] = "refuse",
    ) -> None:
        check_choice("plaintext", plaintext, "refuse", "read", "write")
        check_type("codec", codec, (Codec, type(None)), "a Codec or None")
        try:
            from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
        except ImportError:
            wrong("keys", "need the package cryptography: pip install 'trio_session[crypto]'")
        try:
            self._ring = _make_ring(keys)
        except UnsupportedAlgorithm:
            wrong("keys", "need AES-SIV, which OpenSSL has since 3.0: use a wheel of cryptography")
        self._first = next(iter(self._ring))
        self._codec = codec or MsgpackCodec()
        self._plaintext: Literal["refuse", "read", "write"] = plaintext
        self._invalid = (InvalidTag, ValueError)  # imported here, as `import trio_session` is to stay light

    @staticmethod
    def new_key() -> str:
        """Make a key that nobody can guess. It is a secret: keep it where passwords are kept."""
        return urlsafe_b64encode(secrets.token_bytes(_KEY)).decode()

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """What may be shown of the keys: eight hex digits each, which lead to no key. The first one's come first."""
        return tuple(fingerprint.hex() for fingerprint in self._ring)

    @property
    def plaintext(self) -> Literal["refuse", "read", "write"]:
        """What is done with records that are not encrypted."""
        return self._plaintext

    def __repr__(self) -> str:
        return f"<EncryptedCodec keys {' '.join(self.fingerprints)}, plaintext {self._plaintext!r}>"

    def encode(self, data: dict[str, Any], *, context: bytes) -> bytes:
        """Encode and encrypt `data`, for the record that `context` names.

        Raises:
            TypeError: something cannot be kept exactly; the message says where it is, not what.
        """
        plain = self._codec.encode(data, context=context)
        if self._plaintext == "write":
            return plain
        head = ENCRYPTED + self._first
        return head + self._ring[self._first].encrypt(plain, _bound_to(head, context))

    def decode(self, blob: bytes, *, context: bytes) -> dict[str, Any]:
        """Decrypt and decode what `encode` made.

        Raises:
            SessionDataError: its key is missing; it was altered, or made for another record; or it is not encrypted,
                and plaintext is refused.
        """
        if not blob.startswith(ENCRYPTED):
            if self._plaintext == "refuse":
                raise SessionDataError(
                    "the stored session is not encrypted, so anybody may have made it; for a roll-out there is "
                    "EncryptedCodec(plaintext='read')"
                )
            return self._codec.decode(blob, context=context)
        head = blob[:_HEAD]
        cipher = self._ring.get(head[len(ENCRYPTED) :])
        if cipher is None:
            raise SessionDataError(
                f"the stored session is encrypted with the key {fingerprint_of(blob)}, which is not among the keys "
                f"({', '.join(self.fingerprints)}); add it again, behind the others"
            )
        try:
            plain = cipher.decrypt(blob[_HEAD:], _bound_to(head, context))
        except self._invalid:
            raise SessionDataError("the stored session was altered, or put in another session's place") from None
        return self._codec.decode(plain, context=context)


def fingerprint_of(blob: bytes) -> str | None:
    """Of the key that a record is encrypted with; None if it is in plain. Its first eight bytes are enough."""
    return blob[len(ENCRYPTED) : _HEAD].hex() if blob.startswith(ENCRYPTED) else None


def _bound_to(head: bytes, context: bytes) -> list[bytes]:
    """What is authenticated with a record, so that it is good for nothing without."""
    return [head, context]


def _make_ring(keys: Sequence[str]) -> dict[bytes, AESSIV]:
    """Ciphers by the fingerprints of their keys, the first key's first."""
    from cryptography.hazmat.primitives.ciphers.aead import AESSIV

    if isinstance(keys, str) or not isinstance(keys, Sequence):
        wrong("keys", f"must be a sequence of str, not {type(keys).__name__}")
    ring: dict[bytes, AESSIV] = {}
    for number, key in enumerate(keys, 1):
        secret = _derive(_parse(key, number))
        fingerprint = secret[_CIPHER_KEY:]
        if fingerprint in ring:
            wrong("keys", f"must differ; number {number} is there twice")
        ring[fingerprint] = AESSIV(secret[:_CIPHER_KEY])
    if not ring:
        wrong("keys", "must not be empty")
    return ring


def _parse(key: object, number: int) -> bytes:
    try:
        if not isinstance(key, str):
            raise TypeError
        text = key.translate(str.maketrans("-_", "+/")).rstrip("=")  # of either alphabet
        parsed = b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (TypeError, ValueError):
        parsed = b""
    if len(parsed) != _KEY:
        wrong("keys", f"must be {_HOW}; number {number} is not")
    return parsed


def _derive(key: bytes) -> bytes:
    """From one key the two that AES-SIV wants, and a fingerprint that leads back to none of them."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(SHA256(), _CIPHER_KEY + _FINGERPRINT, salt=None, info=b"trio_session enc1").derive(key)
