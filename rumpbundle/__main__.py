"""``rumpbundle`` and ``python -m rumpbundle``."""

from __future__ import annotations

import sys

from rumpbundle.cli import main

if __name__ == "__main__":
    sys.exit(main())
