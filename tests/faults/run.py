"""Injects faults: 1,000 random ones a format, or as many as --number says.

usage: PYTHONPATH=.:tests nice python tests/faults/run.py [--number N] [--seed N] [FORMAT…]

One line a failure; status 1 if there was one. A seed gives the same faults again.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from support import kernels

from faults.campaign import Campaign
from rumpbundle import formats


def run(names: Sequence[str], number: int, seed: int) -> dict[str, int]:
    """Bundle each format of *names* with *number* faults; print and return how many went badly."""
    failures = dict.fromkeys(names, 0)
    with tempfile.TemporaryDirectory() as directory:
        module = Path(directory) / "module"
        module.write_bytes(random.Random(1).randbytes(3 << 20))
        place = Path(directory) / "campaign"
        place.mkdir()
        campaign = Campaign(place, kernels.build("multiboot"), module)
        for format in names:
            for trial in campaign.trials(format, number, seed):
                try:
                    campaign.run(trial)
                except AssertionError as error:
                    failures[format] += 1
                    print(f"FAILED {error}", flush=True)
            print(f"{format}: {number} faults, {failures[format]} failures", flush=True)
        campaign.close()
    return failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("formats", nargs="*", default=formats.names())
    parser.add_argument("--number", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    return int(any(run(arguments.formats, arguments.number, arguments.seed).values()))


if __name__ == "__main__":
    sys.exit(main())
