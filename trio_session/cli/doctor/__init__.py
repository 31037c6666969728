"""The doctor: looks at everything that sessions need of a server, and says what is wrong and what to type.

From the bottom up: `_findings` what is found, and how it is told · `_reaching` a connection, step by step · `_servers`
which ones there are · `_rights`
what we may do · `_health` how the server is · `_readability` whether stored sessions can be read · `_examination` all
of it in its order.
"""

from __future__ import annotations

from ._examination import examine as examine, settings_are_wrong as settings_are_wrong
from ._findings import Finding as Finding, as_json as as_json, as_text as as_text, exit_code as exit_code

__all__ = ["Finding", "as_json", "as_text", "examine", "exit_code", "settings_are_wrong"]
