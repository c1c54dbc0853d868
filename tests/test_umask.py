"""A umask that leaves nothing to anybody: what is made on the way is still ours to read, root or not."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import os
from rumpbundle.host import environment, programs
with environment.scratch_directory() as scratch:
    programs.run(["touch", str(scratch / "made")])
    print(oct(os.stat(scratch).st_mode & 0o777), oct(os.stat(scratch / "made").st_mode & 0o777))
"""


def test_scratch_files_are_ours():
    said = subprocess.run([sys.executable, "-c", PROGRAM], umask=0o777, stdout=subprocess.PIPE, text=True, check=True)
    assert said.stdout == "0o700 0o600\n"
