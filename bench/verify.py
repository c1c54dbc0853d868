"""verify of 2 GiB against ``b3sum`` of the same. ``python bench/verify.py [MIB]`` takes another size."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from disks import kernel, payload
from measure import RUMPBUNDLE, Row, ratio, report, run


def rows(directory: Path, size: int) -> Iterator[Row]:
    app, module, raw = kernel(directory / "app.bin"), payload(directory / "payload", size), directory / "app.raw"
    run([*RUMPBUNDLE, "raw", "-q", str(app), "--module", str(module), "-o", str(raw)])
    ours = [*RUMPBUNDLE, "verify", "-q", str(raw)]
    yield ratio(f"verify of {size} MiB as b3sum", 1.2, lambda: run(ours), lambda: run(["b3sum", str(raw)]), rounds=5)


if __name__ == "__main__":
    scratch = Path(tempfile.mkdtemp())
    try:
        sys.exit(report(rows(scratch, int(sys.argv[1]) if len(sys.argv) > 1 else 2048)))
    finally:
        shutil.rmtree(scratch)
