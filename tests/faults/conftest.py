"""What `make test` leaves out."""

from __future__ import annotations

from ._harness import amount

collect_ignore = amount(["test_chaos.py", "test_cluster.py", "test_groups.py", "test_sentinel.py"], list[str]())
