"""The benchmarks: their parts import, and each row that one measures has a limit and an aim."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "bench"
LIMITS = tomllib.loads((BENCH / "limits.toml").read_text("utf-8"))
DRAWS = {"page", "plots"}
"""They need matplotlib, which the tests do without."""


def test_every_limit_is_wider_than_its_aim():
    for name, row in LIMITS.items():
        assert row.keys() == {"work", "limit", "aim"}, name
        assert 0 < row["aim"] <= row["limit"], name


def test_every_part_imports():
    parts = [path.stem for path in BENCH.glob("*.py") if path.stem not in DRAWS]
    subprocess.run([sys.executable, "-c", f"import {', '.join(parts)}"], cwd=BENCH, check=True)


@pytest.mark.parametrize("name", sorted(LIMITS))
def test_a_row_is_named_where_it_is_measured(name):
    source = "\n".join(path.read_text("utf-8") for path in BENCH.glob("*.py"))
    # A name made of a format and a rest ("iso-2g", "convert-vdi") stands there in two pieces.
    first, _, rest = name.partition("-")
    assert f'"{name}"' in source or re.search(rf'"{first}"', source) or re.search(rf'"{re.escape(rest)}"', source)


def test_what_is_above_its_limit_is_a_miss(tmp_path):
    program = (
        "from measure import Row, report;"
        "print(report([Row('qcow2', 1.25)]), report([Row('qcow2', 1.26, spread=(1.2, 1.3))]))"
    )
    ran = subprocess.run([sys.executable, "-c", program], cwd=BENCH, check=True, capture_output=True, text=True)
    kept, missed, statuses = ran.stdout.splitlines()
    assert kept.startswith("ok ")
    assert missed.startswith("MISS")
    assert "1.20-1.30" in missed
    assert statuses == "0 1"


def test_the_rounds_that_are_told_are_those_that_were_run():
    """BENCH_ROUNDS may have asked for fewer than a part wants."""
    for path in BENCH.glob("*.py"):
        assert not re.search(r"\{\w*ROUNDS\} rounds|\d rounds", path.read_text("utf-8")), path.name
