"""The Lua scripts, each in a file of its own, and how they are called. They are the protocol: read them first."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import Final

from ._resp import pack

__all__ = ["ACQUIRE", "COMMIT", "DESTROY", "LOAD", "RELEASE", "RENEW", "ROTATE", "SCRIPTS", "Script"]

_folder = files("trio_session.redis") / "scripts"
_common = (_folder / "_common.lua").read_text("utf-8")


class Script:
    """A script by name; its text is `_common.lua` and its own file.

    Args:
        name: of the file.
        keys: how many of its arguments are keys.
        shares: it uses what `_common.lua` defines.
    """

    def __init__(self, name: str, *, keys: int, shares: bool = True) -> None:
        own = (_folder / f"{name}.lua").read_text("utf-8")
        self.name = name
        self.text = (_common + own if shares else own).encode()
        self._keys = b"%d" % keys
        self._digest = hashlib.sha1(self.text, usedforsecurity=False).hexdigest().encode()  # how Redis names scripts

    def __repr__(self) -> str:
        return f"<Script {self.name}>"

    def call(self, *arguments: str | bytes | int) -> bytes:
        """The command that runs it, if the server knows it."""
        return pack((b"EVALSHA", self._digest, self._keys, *arguments))

    def teach_and_call(self, *arguments: str | bytes | int) -> bytes:
        """The command that runs it, whether or not the server knows it."""
        return pack((b"EVAL", self.text, self._keys, *arguments))


LOAD: Final = Script("load", keys=1)
ACQUIRE: Final = Script("acquire", keys=4)
COMMIT: Final = Script("commit", keys=4)
ROTATE: Final = Script("rotate", keys=5)
DESTROY: Final = Script("destroy", keys=4)
RELEASE: Final = Script("release", keys=4)
RENEW: Final = Script("renew", keys=1, shares=False)

SCRIPTS: Final = (LOAD, ACQUIRE, COMMIT, ROTATE, DESTROY, RELEASE, RENEW)
