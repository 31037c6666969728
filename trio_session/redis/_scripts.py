"""The Lua scripts, each in a file of its own, and how they are called. They are the protocol: read them first."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import Final, TypeAlias

from ._resp import pack

__all__ = ["ACQUIRE", "COMMIT", "DESTROY", "LOAD", "RELEASE", "RENEW", "ROTATE", "SCRIPTS", "Argument", "Script"]

Argument: TypeAlias = str | bytes | int

_folder = files("trio_session.redis") / "scripts"


class Script:
    """A script by name.

    Args:
        name: of its file.
        keys: how many of its arguments are keys.
        uses: names of files with functions that it calls; what it does not need would cost time in every call.
    """

    def __init__(self, name: str, *uses: str, keys: int) -> None:
        self.name = name
        self.text = "".join((_folder / f"{part}.lua").read_text("utf-8") for part in (*uses, name)).encode()
        self._keys = b"%d" % keys
        self._digest = hashlib.sha1(self.text, usedforsecurity=False).hexdigest().encode()  # how Redis names scripts

    def __repr__(self) -> str:
        return f"<Script {self.name}>"

    def call(self, *arguments: Argument) -> bytes:
        """The command that runs it, if the server knows it."""
        return pack((b"EVALSHA", self._digest, self._keys, *arguments))

    def teach_and_call(self, *arguments: Argument) -> bytes:
        """The command that runs it, whether or not the server knows it."""
        return pack((b"EVAL", self.text, self._keys, *arguments))


LOAD: Final = Script("load", "_time", "_reading", keys=1)
ACQUIRE: Final = Script("acquire", "_time", "_reading", "_queue", keys=3)
COMMIT: Final = Script("commit", "_time", "_writing", "_queue", keys=4)
ROTATE: Final = Script("rotate", "_time", "_writing", "_queue", keys=5)
DESTROY: Final = Script("destroy", "_writing", "_queue", keys=4)
RELEASE: Final = Script("release", "_queue", keys=3)
RENEW: Final = Script("renew", keys=1)

SCRIPTS: Final = (LOAD, ACQUIRE, COMMIT, ROTATE, DESTROY, RELEASE, RENEW)
