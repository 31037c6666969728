"""What is logged about a million inputs: looked at, and not kept."""

from __future__ import annotations

import logging
import traceback

__all__ = ["Log"]


class Log(logging.Handler):
    """Remembers the last message of each level and its traceback, and those of which a stranger can have made two."""

    def __init__(self) -> None:
        super().__init__()
        self.last: dict[str, str] = {}
        self.forged: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        reason = "".join(traceback.format_exception(record.exc_info[1])) if record.exc_info else ""
        self.last[record.levelname] = f"{message}\n{reason}".rstrip()
        if not message.isprintable():
            self.forged.append(message)
