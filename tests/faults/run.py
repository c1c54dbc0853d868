"""Injects faults: 1,000 random ones a format, or as many as --number says.

usage: PYTHONPATH=.:tests nice python tests/faults/run.py [--number N] [--seed N] [FORMAT…]

One line a failure; status 1 if there was one. A seed gives the same faults again.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

from support import kernels

from faults.campaign import Campaign
from rumpbundle import formats


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("formats", nargs="*", default=formats.names())
    parser.add_argument("--number", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    failures = 0
    with tempfile.TemporaryDirectory() as directory:
        module = Path(directory) / "module"
        module.write_bytes(random.Random(1).randbytes(3 << 20))
        place = Path(directory) / "campaign"
        place.mkdir()
        campaign = Campaign(place, kernels.build("multiboot"), module)
        for format in arguments.formats:
            bad = 0
            for trial in campaign.trials(format, arguments.number, arguments.seed):
                try:
                    campaign.run(trial)
                except AssertionError as error:
                    bad += 1
                    print(f"FAILED {error}", flush=True)
            print(f"{format}: {arguments.number} faults, {bad} failures", flush=True)
            failures += bad
        campaign.close()
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
