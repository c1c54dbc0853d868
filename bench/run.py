"""Runs the benchmarks, or those named, and says which promises hold.

python bench/run.py [NAME…]          BENCH_SCALE=8 divides sizes by eight, BENCH_DIR says where to write
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BENCHMARKS = ("iso", "disks", "trees", "instances", "fleet", "clouds", "iteration")


def main(names: list[str]) -> int:
    status = 0
    for name in names or BENCHMARKS:
        print(f"== {name}", flush=True)
        status |= subprocess.run([sys.executable, str(Path(__file__).with_name(f"{name}.py"))]).returncode
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
