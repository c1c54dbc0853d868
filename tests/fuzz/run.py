"""Fuzz one target and keep the corpus: not part of the suite, which replays what this found.

    PYTHONPATH=.:tests nice python tests/fuzz/run.py images --seconds 600

Coverage-guided, with atheris (pip install atheris). A crash is kept in crash-* of the current directory; its bytes
belong into the corpus file with the fix.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
MOST = 16 << 10
"""Bytes kept of a corpus."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", choices=["kernels", "configs", "images", "manifests", "commandlines"])
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--leave-corpus", action="store_true", help="keep nothing of what it finds")
    parser.add_argument("--child", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        return _child(arguments.target, arguments.child)

    from fuzz import targets

    kept = HERE / "corpus" / f"{arguments.target}.hex"
    starts = targets.unpack(kept.read_text()) if kept.exists() else list(targets.STARTS[arguments.target])
    with tempfile.TemporaryDirectory() as directory:
        work, least = Path(directory) / "work", Path(directory) / "least"
        work.mkdir()
        least.mkdir()
        for number, data in enumerate(starts):
            (work / f"start{number}").write_bytes(data)
        # libFuzzer starts itself anew to merge, so it must be one executable file.
        command = Path(directory) / "fuzz"
        script = shlex.join([sys.executable, __file__, arguments.target, "--child", str(command)])
        command.write_text(f'#!/bin/sh\nexec {script} "$@"\n')
        command.chmod(0o755)
        limits = ["-timeout=30", "-rss_limit_mb=2048", "-max_len=4096", "-len_control=0"]
        if words := targets.WORDS.get(arguments.target):
            dictionary = Path(directory) / "words"
            dictionary.write_text("".join(f'"{_escaped(word)}"\n' for word in words))
            limits.append(f"-dict={dictionary}")
        status = subprocess.call([command, f"-max_total_time={arguments.seconds}", *limits, str(work)])
        if arguments.leave_corpus:
            return status
        subprocess.call([command, "-merge=1", *limits, str(least), str(work)])
        found = [path.read_bytes() for path in least.iterdir()]
    kept.parent.mkdir(exist_ok=True)
    kept.write_text(targets.pack(targets.limited([*found, *targets.STARTS[arguments.target]], MOST)))
    return status


def _escaped(word: str) -> str:
    """Return *word* as libFuzzer's dictionaries write it."""
    return "".join(f"\\x{byte:02x}" for byte in word.encode())


def _child(target: str, options: list[str]) -> int:
    import atheris

    with atheris.instrument_imports(include=["rumpbundle"]):
        import rumpbundle

        # Much is imported only when used, which would be after this block and so not measured.
        for module in pkgutil.walk_packages(rumpbundle.__path__, "rumpbundle."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
        from fuzz import targets
    atheris.Setup(options, targets.TARGETS[target])
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
