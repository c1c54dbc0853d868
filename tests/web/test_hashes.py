"""The page's SHA-256, which remembers where zeros lead, against Python's."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess

import pytest
from support.browser import built_page
from support.tools import require

SCRIPT = """
const [page, cases, own] = process.argv.slice(1);
if (own === "without") Object.defineProperty(globalThis, "crypto", { value: undefined });
const { sha256 } = await import(`file://${page}/hashes.js`);
const found = [];
for (const { size, runs } of JSON.parse(cases))
  found.push(await sha256(size, runs.map(([at, hex]) => [at, new Uint8Array(Buffer.from(hex, "hex"))])));
console.log(JSON.stringify(found));
"""
STEP = 512 << 10


@pytest.mark.parametrize("own", ["with", "without"])
def test_a_file_with_long_zeros(own):
    """*own*: with the browser's SHA-256, as a page from https: has it, or without."""
    chosen = random.Random(1)
    cases, expected = [], []
    # The same beginnings come again and again, so that what is remembered is used.
    for size in (0, 1, 63, 64, STEP - 1, STEP, STEP + 1, 3 * STEP, 9 * STEP + 77, 9 * STEP + 77):
        for count in (0, 1, 2):
            starts = sorted(chosen.choice([0, 64, STEP - 3, 4 * STEP, 7 * STEP + 5]) for _ in range(count))
            runs = {at: chosen.randbytes(64) for at in starts if at + 64 <= size}
            whole = bytearray(size)
            for at, data in runs.items():
                whole[at : at + 64] = data
            cases.append({"size": size, "runs": [[at, data.hex()] for at, data in runs.items()]})
            expected.append(hashlib.sha256(whole).hexdigest())
    require("node")
    script = ["node", "--input-type=module", "-e", SCRIPT, str(built_page()), json.dumps(cases), own]
    ran = subprocess.run(script, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == expected
