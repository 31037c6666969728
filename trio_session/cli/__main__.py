"""`python -m trio_session.cli` is `trio-session`."""

from __future__ import annotations

import sys

from . import main

sys.exit(main())
