"""What is logged about a million inputs: looked at, and not kept."""

from __future__ import annotations

import logging

__all__ = ["Log"]


class Log(logging.Handler):
    """Remembers the last message of each level, and those of which a stranger could have made two."""

    def __init__(self) -> None:
        super().__init__()
        self.last: dict[str, str] = {}
        self.forged: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        message = self.last[record.levelname] = record.getMessage()
        if not message.isprintable():
            self.forged.append(message)
