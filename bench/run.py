"""Runs every benchmark here and says which promises hold."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

NOT_BENCHMARKS = {"run", "measure"}


def main() -> int:
    status = 0
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.stem not in NOT_BENCHMARKS:
            print(f"== {path.stem}", flush=True)
            status |= subprocess.run([sys.executable, str(path)]).returncode
    return status


if __name__ == "__main__":
    sys.exit(main())
