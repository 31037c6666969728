"""Sessions on Redis: how commands get there (_link), what they do (scripts/), and the store on top (_store).

From the bottom up: `_resp` reads replies · `_connection` logs in to what `_address` names · `_supervisor` keeps it up ·
`_link` shares one among all tasks · `_control` and `_waiters` hear when a lock is free · `_scripts` · `_node` is one
server · `_topology` knows which one to ask (the only one; or what `_sentinel` or `_cluster` say) · `_store`.
"""

from __future__ import annotations

from ._store import RedisStore as RedisStore, open_redis_store as open_redis_store

__all__ = ["RedisStore", "open_redis_store"]
