"""``rumpbundle --boot qemu APP`` against a bare ``qemu-system-x86_64 -kernel APP``: to the guest's first byte."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from measure import RUMPBUNDLE, Row, in_turn, report, run, scratch

ROOT = Path(__file__).parents[1]
ROUNDS = 10
GREETING = b"hello"
QEMU = ["qemu-system-x86_64", "-accel", "tcg", "-nodefaults", "-no-user-config", "-display", "none", "-vga", "none"]
QEMU += ["-m", "128M", "-no-reboot", "-serial", "stdio"]


def first_byte(argv: Sequence[str]) -> float:
    """Return the seconds from the start of *argv* to what the guest says first (GRUB's own bytes do not count)."""
    started = time.perf_counter()
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        assert process.stdout is not None
        said = b""
        try:
            while GREETING not in said.lower():
                data = os.read(process.stdout.fileno(), 65536)
                if not data:
                    raise SystemExit(f"{' '.join(argv)} ended without a greeting: {said!r}")
                said += data
            return time.perf_counter() - started
        finally:
            process.kill()


def iteration(directory: Path) -> Iterator[Row]:
    run(["make", "-C", str(ROOT / "examples" / "hello")])
    app = str(ROOT / "examples" / "hello" / "hello.bin")
    disk = directory / "hello.raw"
    run([*RUMPBUNDLE, "raw", app, "-o", str(disk)])
    boot = [*RUMPBUNDLE, "--boot", "qemu", app, "--accel", "tcg"]
    words = subprocess.run([*boot, "--dry-run"], check=True, capture_output=True, text=True).stdout.splitlines()[-1]
    ours_by_hand = [
        "sh",
        "-c",
        "exec " + words.replace("if=none,", "if=none,snapshot=on,").replace("=hello.raw", f"={disk}"),
    ]
    seconds = in_turn(
        {
            "ours": lambda: first_byte(boot),
            "peer": lambda: first_byte([*QEMU, "-kernel", app]),
            "disk": lambda: first_byte(ours_by_hand),
            "python": lambda: run([sys.executable, "-c", ""]),
            "plan": lambda: run([*boot, "--dry-run"]),
        },
        ROUNDS,
    )
    over = [ours - bare for ours, bare in zip(seconds["ours"], seconds["peer"], strict=True)]
    median = {name: statistics.median(times) for name, times in seconds.items()}
    yield Row(
        "iteration",
        statistics.median(over),
        f"{median['ours']:.3f} - {median['peer']:.3f}; the disk boot and GRUB {median['disk'] - median['peer']:.3f},"
        f" ours before it {median['ours'] - median['disk']:.3f}"
        f" (a dry run {median['plan']:.3f}, Python alone {median['python']:.3f}), {len(over)} rounds",
        (min(over), max(over)),
        {"ours": seconds["ours"], "peer": seconds["peer"]},
    )


def main() -> int:
    with scratch() as directory:
        return report(iteration(directory))


if __name__ == "__main__":
    sys.exit(main())
