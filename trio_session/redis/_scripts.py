"""The Lua scripts, each in a file of its own, and how they are called. They are the protocol: read them first."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import Final

from ._resp import bulk

__all__ = ["ACQUIRE", "COMMIT", "DESTROY", "LOAD", "RELEASE", "RENEW", "ROTATE", "SCRIPTS", "Script"]

_folder = files("trio_session.redis") / "scripts"


class Script:
    """A script by name.

    Args:
        name: of its file.
        uses: names of files with functions that it calls; what it does not need would cost time in every call.
        keys: how many keys it takes.
        values: how many other arguments.

    Attributes:
        start: how the command begins that runs it, if the server knows it; its keys and values follow, each a `bulk`.
    """

    def __init__(self, name: str, *uses: str, keys: int, values: int) -> None:
        self.name = name
        self.text = "".join((_folder / f"{part}.lua").read_text("utf-8") for part in (*uses, name)).encode()
        self._digest = hashlib.sha1(self.text, usedforsecurity=False).hexdigest().encode()  # how Redis names scripts
        self._keys = keys
        start = b"*%d\r\n" % (3 + keys + values)
        self.start = start + bulk("EVALSHA") + bulk(self._digest) + bulk(keys)
        self._teaching_start = start + bulk("EVAL") + bulk(self.text) + bulk(keys)

    def __repr__(self) -> str:
        return f"<Script {self.name}>"

    def taught(self, payload: bytes) -> bytes:
        """The command that does the same as `payload`, whether or not the server knows the script."""
        return self._teaching_start + payload.removeprefix(self.start)


LOAD: Final = Script("load", "_time", "_reading", keys=1, values=3)
ACQUIRE: Final = Script("acquire", "_time", "_reading", "_queue", keys=3, values=7)
COMMIT: Final = Script("commit", "_time", "_writing", "_queue", keys=4, values=10)
ROTATE: Final = Script("rotate", "_time", "_writing", "_queue", keys=5, values=8)
DESTROY: Final = Script("destroy", "_writing", "_queue", keys=4, values=4)
RELEASE: Final = Script("release", "_queue", keys=3, values=2)
RENEW: Final = Script("renew", keys=1, values=2)

SCRIPTS: Final = (LOAD, ACQUIRE, COMMIT, ROTATE, DESTROY, RELEASE, RENEW)
