"""Watching a guest: its console, its end, and that nothing of it outlives us."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from support.bootsector import bootsector
from support.tools import require

from rumpbundle.errors import GuestError, ToolError
from rumpbundle.host import programs
from rumpbundle.kernels.unikernel import Family, Firmware
from rumpbundle.launcher import qemu
from rumpbundle.launcher.backend import Drive, Ending, LaunchRequest, Reason
from rumpbundle.launcher.bioslog import BiosLog
from rumpbundle.launcher.console import KEEP, Console
from rumpbundle.launcher.endings import Endings
from rumpbundle.launcher.session import Guest

# --- the console ---


def test_text_arrives_in_pieces():
    console = Console()
    for byte in "\x1b[2J\x1b[1;1Hgrüße\r\n\x1b(Bready\0\r\n".encode():
        console.feed(bytes([byte]))
    assert console.text == "grüße\nready\n"
    assert console.tail(1) == ["ready"]


def test_matches_follow_each_other():
    console = Console()
    console.feed(b"a1\na2\n")
    assert console.expect(r"^a(\d)$", 0)[1] == "1"
    assert console.expect(r"^a(\d)$", 0)[1] == "2"
    assert console.expect(r"^a(\d)$", 0) is None
    threading.Timer(0.05, lambda: (console.feed(b"a"), console.feed(b"3\n"))).start()
    assert console.expect(r"^a(\d)$", 10)[1] == "3"


@pytest.mark.parametrize("pattern", [r"status: (\d+)", r"^status: (.*)$"])
def test_the_end_of_what_arrived_is_not_the_end_of_the_line(pattern):
    console = Console()
    console.feed(b"status: 4")
    threading.Timer(0.02, lambda: console.feed(b"2\n")).start()
    assert console.expect(pattern, 10)[1] == "42"


def test_an_unfinished_line_is_taken_when_nothing_follows():
    console = Console()
    console.feed(b"login: ")
    assert console.expect("^login: $", 10)
    console.feed(b"passw")
    assert console.expect("passw.*$", 0)[0] == "passw"
    console.feed(b"bye")
    console.close()
    assert console.expect("bye$", None)


def test_a_flood_is_searched_whole_and_kept_in_part():
    console = Console()
    seen: list[str] = []
    console.watch(r"needle \d+", lambda match: seen.append(match[0]))
    hay = b"0123456789abcde\n" * 4096
    for number in range(40):
        console.feed(hay + b"needle %d\n" % number)
    assert len(seen) == 40
    assert KEEP <= len(console.text) <= 2 * KEEP + len(hay) + 100
    assert console.tail(1) == ["needle 39"]


def test_lines_are_read_as_a_stream():
    console = Console()
    console.feed(b"one\ntw")
    threading.Timer(0.05, lambda: (console.feed(b"o\nrest"), console.close())).start()
    assert list(console) == ["one\n", "two\n", "rest"]


# --- what guests say ---


@pytest.mark.parametrize(
    ("family", "text", "status", "reason"),
    [
        (Family.RUMPRUN, '=== main() of "h" returned 3 ===\nhalted\n', 3, Reason.HALTED),
        (Family.RUMPRUN, '=== main() of "h" returned 0 ===\nhalted\n', 0, Reason.HALTED),
        (Family.RUMPRUN, "=== ERROR: _exit(7) called ===\n", 7, None),
        (Family.RUMPRUN, '=== main() of "a" returned 0 ===\n=== main() of "b" returned 2 ===\n', 2, None),
        (Family.RUMPRUN, "panic: command line too long\n", None, Reason.PANICKED),
        (Family.RUMPRUN, "PANIC: out of memory\nhalted\n", None, Reason.PANICKED),
        (Family.RUMPRUN, "FATAL TRAP: page fault at 0x0\nhalted\n", None, Reason.CRASHED),
        (Family.RUMPRUN, '=== main() of "a" returned 0 ===\nFATAL TRAP: 6\nhalted\n', 0, Reason.CRASHED),
        (Family.RUMPRUN, "mount failed\n=== bootstrap failed\nhalted\n", None, Reason.CRASHED),
        (Family.RUMPRUN, "=== _exit(0) called ===\nhalted\n", 0, Reason.HALTED),
        (Family.RUMPRUN, "halted (well, spinning ...)\n", None, Reason.CRASHED),
        (Family.RUMPRUN, "halted\n", None, Reason.CRASHED),
        (
            Family.RUMPRUN,
            '=== calling "a" main() ===\n\n=== main() of "a" returned 0 ===\nhalted\n',
            0,
            Reason.HALTED,
        ),
        (
            Family.RUMPRUN,
            '=== calling "a" main() ===\n\n=== main() of "a" returned 0 ===\n=== calling "b" main() ===\nhalted\n',
            0,
            Reason.CRASHED,
        ),
        (Family.RUMPRUN, "I halted\nno panic: here\n", None, None),
        (Family.HERMIT, "[0][INFO] Shutting down with code 101\n", 101, None),
        (Family.HERMIT, "no line of its own: exit status 12\n", 12, None),
        (Family.HERMIT, "exit status 0\n", 0, None),
        (Family.SOLO5, "Solo5: solo5_exit(0) called\n", 0, None),
        (Family.SOLO5, "Solo5: solo5_exit(2) called\nSolo5: Halted\n", 2, Reason.HALTED),
        (Family.SOLO5, "Solo5: trap: type=#PF\nSolo5: ABORT: x.c:1: no\nSolo5: Halted\n", None, Reason.CRASHED),
        (Family.SOLO5, "Solo5: solo5_abort() called\n", None, Reason.CRASHED),
        (Family.UNIKRAFT, "[    0.1] Info: main returned 3, halting system\n", 3, None),
        (Family.UNIKRAFT, "[    0.1] Info: [libukboot] <boot.c @  523> main returned -12\n", -12, None),
        (
            Family.UNIKRAFT,
            "[    0.1] ERR:  [libukboot] <boot.c @  487> Init function at 0x13a8e0 returned error -19\n",
            None,
            Reason.CRASHED,
        ),
        (Family.UNIKRAFT, "[    0.1] CRIT: Unhandled page fault at 0x0\n", None, Reason.CRASHED),
        (Family.UNIKRAFT, "[    0.1] Unikraft crash - Telesto (0.16.2)\n", None, Reason.CRASHED),
        (Family.UNIKRAFT, "Unikraft Crash - Telesto (0.17)\n", None, Reason.CRASHED),
        (Family.UNIKRAFT, "CRIT: [app] <main.c @ 7> Assertion failure: x\n", None, Reason.PANICKED),
        (Family.LINUX, "[    9.0] reboot: System halted\n", None, Reason.HALTED),
        (Family.XEN, "(XEN) Panic on CPU 0:\n(XEN) FATAL TRAP: vec 14\n", None, Reason.PANICKED),
        (Family.XEN, "(XEN) Hardware Dom0 crashed: rebooting machine in 5 seconds.\n", None, Reason.CRASHED),
        (
            Family.PLAIN,
            "!!!! X64 Exception Type - 0E(#PF - Page-Fault)  CPU Apic ID - 0 !!!!\n",
            None,
            Reason.CRASHED,
        ),
        (Family.LINUX, "[    1.0] Kernel panic - not syncing: VFS\n", None, Reason.PANICKED),
        (Family.PLAIN, "[    1.0] Kernel panic - not syncing: of a foreign image\n", None, Reason.PANICKED),
        (Family.RUMPRUN, "Kernel panic - not syncing: said by nobody\n", None, None),
        (Family.UNIKRAFT, "[    0.1] CRIT: [libukboot] <boot.c @ 250> no memory\n", None, Reason.PANICKED),
        (Family.PLAIN, "alloc magic is broken at 0x7ff\nAborted. Press any key to exit.", None, Reason.NOT_STARTED),
        (Family.PLAIN, "grub rescue> ", None, Reason.NOT_STARTED),
        (
            Family.PLAIN,
            "rumpbundle: this kernel cannot start under BIOS firmware; use UEFI.\n",
            None,
            Reason.NOT_STARTED,
        ),
    ],
)
@pytest.mark.parametrize("piece", [1, 4096])
def test_words_of_an_end(family: Family, text: str, status: int | None, reason: Reason | None, piece: int):
    console, endings = Console(), Endings(family)
    endings.watch(console)
    data = f"\n{text}".encode()
    for at in range(0, len(data), piece):
        console.feed(data[at : at + piece])
    assert endings.status == status
    assert (endings.ending and endings.ending.reason) == reason


def test_what_the_boot_loader_writes_to_two_terminals_on_one_port_is_told_once():
    console, endings = Console(), Endings(Family.PLAIN)
    endings.watch(console)
    reason = "rumpbundle: this kernel cannot start under UEFI firmware; use BIOS."
    console.feed(f"\n{reason}{reason}\r\n".encode())
    assert endings.ending == Ending(Reason.NOT_STARTED, None, reason)


def test_what_the_console_told_explains_what_the_hypervisor_noticed():
    def explained(family: Family, said: str, noticed: Reason, status: int | None = None) -> Ending:
        console, endings = Console(), Endings(family)
        endings.watch(console)
        console.feed(said.encode())
        return endings.explained(Ending(noticed, status))

    crash = Ending(Reason.CRASHED, None, "FATAL TRAP: page fault at 0x0")
    assert explained(Family.RUMPRUN, "half a lineFATAL TRAP: page fault at 0x0\nhalted\n", Reason.HALTED) == crash
    told = explained(Family.RUMPRUN, '\n=== main() of "h" returned 0 ===\n', Reason.HALTED)
    assert told == Ending(Reason.HALTED, 0)
    assert not explained(Family.RUMPRUN, "booting\n", Reason.HALTED).good
    assert explained(Family.PLAIN, "booting\n", Reason.HALTED).good
    assert explained(Family.LINUX, "Kernel panic - not syncing: x\n", Reason.RESET).reason is Reason.PANICKED
    assert explained(Family.SOLO5, "Solo5: solo5_exit(2) called\n", Reason.EXITED).status == 2


LAST_WORDS = [
    (Family.PLAIN, "panic: cannot open disk\nBegin traceback...\n", "panic: cannot open disk"),
    (Family.PLAIN, "Fatal trap 12: page fault while in kernel mode\ncpuid = 0\n", "Fatal trap 12"),
    (Family.PLAIN, "fatal page fault in supervisor mode\n", "fatal page fault"),
    (Family.PLAIN, "kernel: page fault trap, code=0\nStopped at main\n", "kernel: page fault trap"),
    (Family.PLAIN, "KERNEL PANIC! no init\n", "KERNEL PANIC"),
    (Family.PLAIN, "Assertion failed: x (core/mmu.cc: f: 7)\n\n[backtrace]\n0x1 <f>\n", "Assertion failed"),
    (Family.PLAIN, "Aborted\n\n[backtrace]\n", "Aborted"),
    (Family.PLAIN, "\x15\x07\t**** PANIC ****\nCPU: 0, Reason: x\n", "**** PANIC ****"),
    (Family.PLAIN, "signal 11 received by tid 2, errno 0, code 1\n", "signal 11"),
    (Family.PLAIN, "panicked at src/main.rs:7:5:\nno\n", "panicked at"),
    (Family.PLAIN, "lapicid 0: panic: kfree\n 80102345 80103456\n", "panic: kfree"),
    (Family.PLAIN, "[00:00:01.230,000] <err> os: >>> ZEPHYR FATAL ERROR 0: CPU exception on CPU 0\n", "ZEPHYR"),
    (Family.PLAIN, "E: >>> ZEPHYR FATAL ERROR 4: Kernel panic on CPU 0\nE: Halting system\n", "ZEPHYR"),
    (Family.PLAIN, "ASSERTION FAIL [x] @ kernel/sched.c:595\n", "ASSERTION FAIL"),
    (Family.PLAIN, "seL4 failed assertion 'x' at src/a.c:120 in function f\nhalting...\n", "seL4 failed"),
    (Family.PLAIN, "######>>> Kernel panic (CPU 0) <<<######\n", "Kernel panic"),
    (Family.PLAIN, "ZIRCON KERNEL PANIC\n", "ZIRCON"),
    (Family.PLAIN, "[    0.123456] [ERROR] Kernel panic: out of memory\n", "Kernel panic"),
    (Family.PLAIN, "!!! KERNEL PANIC !!!\n", "KERNEL PANIC"),
    (Family.PLAIN, "[PANIC] no memory\n", "[PANIC]"),
    (Family.PLAIN, "Division By Zero Exception. System Halted!\n", "Division By Zero"),
    (Family.PLAIN, "EXCEPTION: PAGE FAULT\nrip=0x0\n", "EXCEPTION"),
    (Family.PLAIN, "Unhandled exception 14 at 0x0\n", "Unhandled exception"),
    (Family.PLAIN, "General Protection Fault at 0x101234\nerr=0\n", "General Protection Fault"),
    (Family.PLAIN, "Page fault! ( present ) at 0xdeadbeef\n", "Page fault!"),
    (Family.PLAIN, "[cpu0] *** DOUBLE FAULT ***\n", "DOUBLE FAULT"),
    (Family.PLAIN, "page fault: cr2=deadbeef rip=10004\n", "page fault: cr2"),
    (Family.PLAIN, "KERNEL PAGE FAULT (error code 2)\n", "KERNEL PAGE FAULT"),
    (Family.PLAIN, "unexpected trap 14 from cpu 0 eip 80104 (cr2=0x0)\n", "unexpected trap"),
    (Family.PLAIN, "CPU Exception 14 (#PF) at 0x1000\n", "CPU Exception 14"),
    (Family.PLAIN, "[ 1.0] Oops: 0002 [#1]\n", "Oops"),
    (Family.PLAIN, "BUG at mm.c:12\n", "BUG at"),
    (Family.PLAIN, "thor: Panic! no init\n", "thor: Panic"),
    (Family.PLAIN, "[FATAL] out of memory\n", "[FATAL]"),
    (Family.PLAIN, "FATAL: no root\n", "FATAL: no root"),
    (Family.PLAIN, 'assertion "x" failed: file "main.c", line 7, function: main\n', "assertion"),
    (Family.PLAIN, "app: main.c:7: main: Assertion `x' failed.\n", "main.c:7"),
    (Family.PLAIN, "*** stack smashing detected ***: terminated\n", "stack smashing"),
    (Family.SOLO5, 'Fatal error: exception Failure("x")\n', "Fatal error"),
    (Family.UNIKRAFT, "Fatal error: exception Stdlib.Exit\n", "Fatal error"),
    (Family.UNIKRAFT, "thread 'main' panicked at src/main.rs:2:5:\nno\n", "panicked at"),
    (Family.UNIKRAFT, "panic: runtime error: index out of range\n\ngoroutine 1 [running]:\n", "panic: runtime"),
    (Family.UNIKRAFT, "Assertion failed: x (main.c: main: 7)\n", "Assertion failed: x"),
    (Family.LINUX, "\n\nXZ-compressed data is corrupt\n\n -- System halted", "-- System halted"),
]


@pytest.mark.parametrize("noticed", [Reason.HALTED, Reason.RESET, Reason.POWERED_OFF])
@pytest.mark.parametrize(("family", "said", "detail"), LAST_WORDS, ids=[words for _, _, words in LAST_WORDS])
def test_last_words(family: Family, said: str, detail: str, noticed: Reason):
    """They tell how a guest died that ends then; they are no end, and old ones, or quoted ones, mean nothing."""

    def explained(text: str) -> Ending:
        console, endings = Console(), Endings(family)
        endings.watch(console)
        console.feed(text.encode())
        assert endings.ending is None
        return endings.explained(Ending(noticed))

    found = explained(f"boot\n{said}")
    assert found.reason is Reason.CRASHED
    assert detail in found.detail
    assert explained(said + "running\n" * 100) == Ending(noticed)
    assert explained(f"it said: {said.splitlines()[-1]}; all is well\n").reason is noticed
    assert explained(f"{said}").reason is Reason.CRASHED


@pytest.mark.parametrize(
    "said",
    [
        "no panic: all is well", "panic test passed", "Kernel panic test: ok", "exception: none", "panic=-1 given",
        "init: panic handler installed", "Fatal errors: 0", "fatal error count 0", "exceptions: 0", "Don't panic!",
        "init: panic hook installed", "Panic screen: 80x25", "fatal: 0", "page fault handler: ok", "page faults: 3",
        "Page fault: 1234 cycles", "test page fault at 0x0: ok", "double fault stack at 0x9000", "Triple fault test",
        "assertions: 0 failed", "stack smashing: not detected", "exception 14 handler: ok", "debug at 0x0: on",
        "unexpected interrupt 39 (spurious)",
    ],
)  # fmt: skip
def test_words_that_only_sound_like_the_last(said: str):
    console, endings = Console(), Endings(Family.PLAIN)
    endings.watch(console)
    console.feed(f"{said}\n".encode())
    assert endings.explained(Ending(Reason.HALTED)) == Ending(Reason.HALTED)


BDS = """BdsDxe: loading Boot{0:04X} "{1}" from {2}
BdsDxe: starting Boot{0:04X} "{1}" from {2}
"""
DISK, SHELL, MENU = (
    BDS.format(1, "UEFI Misc Device", "PciRoot(0x0)/Pci(0x1,0x0)"),
    BDS.format(2, "EFI Internal Shell", "Fv(7CB8BDC9)/FvFile(7C04A583)"),
    BDS.format(0, "UiApp", "Fv(7CB8BDC9)/FvFile(462CAA21)"),
)
FAILED = 'BdsDxe: failed to {0} Boot0001 "UEFI Misc Device" from PciRoot(0x0)/Pci(0x1,0x0): {1}\n'


@pytest.mark.parametrize(
    ("text", "ending"),
    [
        (FAILED.format("load", "Not Found") + SHELL, "was not started (its firmware found nothing to boot)"),
        (
            FAILED.format("load", "Invalid Parameter") + SHELL,
            "was not started (its firmware does not load it: Invalid Parameter)",
        ),
        (DISK + "hello\n" + MENU, "exited with status 0 (it returned to the firmware)"),
        (
            DISK + FAILED.format("start", "Unsupported") + SHELL,
            "exited with status 1 (it returned Unsupported to the firmware)",
        ),
        (DISK + "Welcome to GRUB!\n" + MENU, "was not started (the boot loader returned to the firmware)"),
        (FAILED.format("load", "Not Found") + DISK + "hello\n", None),
        (MENU, None),  # somebody pressed a key
    ],
)
def test_what_uefi_goes_on_with_tells_how_it_ended(text, ending):
    console, endings = Console(), Endings(Family.PLAIN)
    endings.watch(console)
    for line in text.splitlines(keepends=True):
        console.feed(line.encode())
    assert str(endings.ending) == (f"the guest {ending}" if ending else "None")


@pytest.mark.boot
def test_uefi_that_finds_nothing_to_boot(tmp_path: Path):
    image = tmp_path / "disk.raw"
    image.write_bytes(bytes(1 << 20))
    request = LaunchRequest(name="test", disk=Drive(path=str(image)), accel="tcg", firmware=Firmware.UEFI)
    with Guest(qemu.BACKEND.start(qemu.BACKEND.plan(request), lambda event: None)) as guest:
        assert str(guest.wait(180)) == "the guest was not started (its firmware found nothing to boot)"


def test_good_and_bad_endings():
    assert Ending(Reason.POWERED_OFF).good
    assert Ending(Reason.HALTED, 0).good
    assert not Ending(Reason.HALTED, 3).good
    assert not Ending(Reason.PANICKED).good
    assert not Ending(Reason.RESET).good
    assert str(Ending(Reason.EXITED, 3, "isa-debug-exit")) == "the guest exited with status 3 (isa-debug-exit)"


# --- a guest that is only a program ---


class Program:
    """A backend's running guest without a hypervisor."""

    def __init__(self, *argv: str) -> None:
        self._child = programs.spawn(argv)
        self.output = self._child.output
        self.stopped = 0

    def send(self, data: bytes) -> int:
        return self._child.write(data)

    def poll(self, quiet: float) -> Ending | None:
        return None if self._child.poll() is None else Ending(Reason.POWERED_OFF)

    def stop(self) -> None:
        self.stopped += 1
        self._child.end()


class Dying(Program):
    """One that takes its time to end, and remembers what was typed meanwhile."""

    def __init__(self, *argv: str) -> None:
        super().__init__(*argv)
        self.dying = threading.Event()
        self.heard: list[bytes] = []

    def send(self, data: bytes) -> int:
        self.heard.append(data)
        return super().send(data)

    def stop(self) -> None:
        self.dying.set()
        time.sleep(0.2)
        super().stop()


HALF_LINES = [
    (Family.RUMPRUN, "FATAL TRAP: page fault", Ending(Reason.CRASHED, None, "FATAL TRAP: page fault")),
    (Family.RUMPRUN, "panic: no memory", Ending(Reason.PANICKED, None, "panic: no memory")),
    (Family.SOLO5, "Solo5: ABORT: x.c:1: no", Ending(Reason.CRASHED, None, "Solo5: ABORT: x.c:1: no")),
    (Family.UNIKRAFT, "CRIT: no memory", Ending(Reason.PANICKED, None, "CRIT: no memory")),
    (Family.UNIKRAFT, "main returned 3", Ending(Reason.POWERED_OFF, 3)),
    (Family.LINUX, "Kernel panic - not syncing: x", Ending(Reason.PANICKED, None, "Kernel panic - not syncing: x")),
    (Family.HERMIT, "exit status 3", Ending(Reason.POWERED_OFF, 3)),
    (Family.HERMIT, "[PANIC] no", Ending(Reason.PANICKED, None, "[PANIC] no")),
    (Family.PLAIN, "panic: no", Ending(Reason.CRASHED, None, "panic: no")),
]


@pytest.mark.parametrize(("family", "said", "ending"), HALF_LINES, ids=[said for _, said, _ in HALF_LINES])
def test_the_last_line_may_lack_its_end(family: Family, said: str, ending: Ending):
    with Guest(Program("printf", f"boot\\n{said}"), family=family) as guest:
        assert guest.wait(30) == ending
        assert guest.console.text == f"boot\n{said}"


def test_a_half_line_of_a_guest_that_says_no_more():
    with Guest(Program("sh", "-c", "printf 'x\\nPANIC: no memory'; exec sleep 60"), family=Family.RUMPRUN) as guest:
        assert guest.wait(30) == Ending(Reason.PANICKED, None, "PANIC: no memory")


def test_a_line_that_goes_on_is_searched_to_its_end():
    console, endings = Console(), Endings(Family.LINUX)
    endings.watch(console)
    console.feed(b"reboot: System")
    console.end_line()
    assert endings.ending is None
    console.feed(b" halted\n")
    assert endings.ending == Ending(Reason.HALTED)


def test_what_is_typed_while_it_ends_is_lost():
    """Its descriptors are closed then, and their numbers soon stand for other files."""
    running = Dying("sh", "-c", "exit 0")
    with Guest(running) as guest:
        assert running.dying.wait(10)
        guest.send("too late")
        assert running.heard == []


def test_expecting_and_typing():
    with Guest(Program("sh", "-c", "echo name?; read x; echo hello $x; echo bye")) as guest:
        guest.expect(r"^name\?$", 10)
        guest.send("world\n")
        assert guest.expect("hello (.*)", 10)[1] == "world"
        with pytest.raises(GuestError, match="powered off before it said 'never'") as caught:
            guest.expect("never", 10)
        assert caught.value.console == ("name?", "hello world", "bye")
        assert guest.wait(1) == Ending(Reason.POWERED_OFF)


def test_silence_and_time():
    running = Program("sleep", "100")
    with Guest(running) as guest:
        with pytest.raises(GuestError, match=r"did not say 'x' within 0\.1 s"):
            guest.expect("x", 0.1)
        assert guest.wait(0.1).reason is Reason.TIMED_OUT
    assert running.stopped == 1
    assert guest.kill().reason is Reason.TIMED_OUT
    guest.send("lost")


def test_a_guest_that_never_reads_does_not_block_for_ever():
    with Guest(Program("sleep", "100")) as guest:
        threading.Timer(0.2, guest.kill).start()
        guest.send(bytes(1 << 20))
        assert guest.ending is not None


def test_a_panic_ends_a_guest_that_only_sits_there():
    script = "echo '[ 0.1] Kernel panic - not syncing: no init'; echo '[ 0.1] ---[ end'; sleep 100"
    with Guest(Program("sh", "-c", script), family=Family.LINUX) as guest:
        ending = guest.wait(10)
    assert ending == Ending(Reason.PANICKED, None, "Kernel panic - not syncing: no init")
    assert guest.console.tail(1) == ["[ 0.1] ---[ end"]


def test_100_mb_of_console_in_flat_memory():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    heard = 0

    def count(data: bytes) -> None:
        nonlocal heard
        heard += len(data)

    script = "yes 'a line of a kernel that floods its console' | head -c 100000000; echo; echo done"
    with Guest(Program("sh", "-c", script), family=Family.LINUX, sinks=(count,)) as guest:
        guest.expect(r"^done$", 60)
        guest.wait(10)
    assert heard == 100_000_006
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10


def test_a_reader_that_goes_away_ends_the_guest():
    def gone(data: bytes) -> None:
        raise BrokenPipeError

    with Guest(Program("sh", "-c", "echo; sleep 100"), sinks=(gone,)) as guest:
        assert "nobody reads" in str(guest.wait(10))


# --- nothing outlives us ---

ABANDON = """
import os, sys
from rumpbundle.host import programs
child = programs.spawn(["sleep", sys.argv[1]])
print(child._process.pid, flush=True)
if sys.argv[2] == "exit":
    os._exit(0)
sys.stdin.read()
"""


def alive(marker: str) -> list[str]:
    """Return the command lines of all processes that mention *marker*."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        if marker.encode() in words:
            found.append(repr(words))
    return found


@pytest.mark.parametrize("how", ["kill", "exit"])
def test_a_child_dies_with_us(how: str):
    marker = f"1234{os.getpid()}{how == 'kill':d}"
    parent = subprocess.Popen(
        [sys.executable, "-c", ABANDON, marker, how], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        if how == "kill":
            os.kill(child, 0)
            parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while (left := alive(marker)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not left


def test_a_child_that_ends_takes_its_watcher_along():
    marker = f"0.5{os.getpid()}"
    child = programs.spawn(["sleep", marker])
    while child.poll() is None:
        time.sleep(0.02)
    child.end()
    child.end()
    deadline = time.monotonic() + 10
    while alive(marker) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(marker)


# --- real machines ---


def start(
    directory: Path, text: str, ending: str, *, first: bytes = b"", family: Family = Family.PLAIN, **more
) -> Guest:
    require(qemu.PROGRAM)
    image = directory / "disk,1.raw"
    image.write_bytes(bootsector(text, ending, first=first).ljust(1 << 20, b"\0"))
    request = LaunchRequest(name="test", disk=Drive(path=str(image)), accel="tcg", **more)
    return Guest(qemu.BACKEND.start(qemu.BACKEND.plan(request), lambda event: None), family=family)


@pytest.mark.boot
@pytest.mark.parametrize(
    ("ending", "expected"),
    [
        ("success", "the guest exited with status 0 (isa-debug-exit)"),
        ("failure", "the guest exited with status 3 (isa-debug-exit)"),
        ("zero", "the guest exited with status 0 (isa-debug-exit)"),
        ("triple", "the guest reset the machine (a triple fault, or a reboot)"),
        ("halt", "the guest halted (its processors sleep with interrupts off)"),
        ("panic", "the guest panicked (pvpanic)"),
    ],
)
def test_endings(tmp_path: Path, ending: str, expected: str):
    with start(tmp_path, "hello\n", ending) as guest:
        assert str(guest.wait(180)) == expected
        assert guest.console.text == "hello\n"


@pytest.mark.boot
def test_a_crash_that_halts_is_no_success(tmp_path: Path):
    text = "FATAL TRAP: page fault at 0x0\nhalted\n"
    with start(tmp_path, text, "halt", family=Family.RUMPRUN) as guest:
        ending = guest.wait(180)
    assert (str(ending), ending.good) == ("the guest crashed (FATAL TRAP: page fault at 0x0)", False)
    with start(tmp_path, "nothing of an end\n", "halt", family=Family.RUMPRUN) as guest:
        assert not guest.wait(180).good


@pytest.mark.boot
def test_what_hermit_says_counts_and_not_how_it_leaves(tmp_path: Path):
    """It leaves by isa-debug-exit with 1 for success and 0 for a panic."""
    with start(tmp_path, "[INFO] shutting down with code 0\n", "failure", family="hermit") as guest:
        assert guest.wait(180).good
    text = "thread 'main' panicked at src/main.rs:7\n[INFO] Shutting down with code 101\n"
    with start(tmp_path, text, "success", family="hermit") as guest:
        assert (guest.wait(180).status, guest.ending.good) == (101, False)
    with start(tmp_path, "[0][PANIC] panicked at src/mm.rs:3\n", "halt", family="hermit") as guest:
        assert guest.wait(180).reason is Reason.PANICKED
    with start(tmp_path, "[LOADER] nothing to start\n", "halt", family="hermit") as guest:
        assert guest.wait(180).reason is Reason.CRASHED


@pytest.mark.boot
@pytest.mark.parametrize("at_once", [True, False])
def test_a_silent_guest_that_resets_was_started_all_the_same(tmp_path: Path, at_once: bool):
    """As iPXE does, or a Linux that is told nothing of the serial port."""
    wait = bytes.fromhex("fb b90f00 f4 e2fd")  # 15 ticks of the timer, 0.8 s
    with start(tmp_path, "", "triple", first=b"" if at_once else wait) as guest:
        ending = guest.wait(180)
    assert ending.reason is Reason.RESET
    assert "console=ttyS0" in ending.detail
    assert not ending.good


@pytest.mark.boot
def test_of_a_silent_guest_that_halts_it_is_said_where_else_to_look(tmp_path: Path):
    with start(tmp_path, "", "halt") as guest:
        ending = guest.wait(180)
    assert ending.good
    assert "chardev=serial0 shows what it writes to port 0xE9" in ending.detail


@pytest.mark.boot
@pytest.mark.parametrize("content", [b"", b"\x55\xaa" * 100])
def test_a_disk_with_nothing_to_boot_is_not_started(tmp_path: Path, content: bytes):
    image = tmp_path / "disk.raw"
    image.write_bytes(content.ljust(1 << 20, b"\0"))
    request = LaunchRequest(name="test", disk=Drive(path=str(image)), accel="tcg")
    with Guest(qemu.BACKEND.start(qemu.BACKEND.plan(request), lambda event: None)) as guest:
        assert str(guest.wait(180)) == "the guest was not started (its firmware found nothing to boot)"


def test_the_firmware_never_waits_for_us_to_listen():
    """SeaBIOS writes its 5 KB byte by byte, and QEMU stands still while one of them has no room."""
    log = BiosLog()
    try:
        os.set_blocking(log.theirs, False)
        for byte in b"x" * 16384 + b"\nBooting from 0000:7c00\n":
            os.write(log.theirs, bytes([byte]))
        assert log.started is None
        log.listen()
        assert log.started
        log.listen()
    finally:
        log.close()


@pytest.mark.boot
def test_where_the_firmware_does_not_say_both_are_possible(tmp_path: Path):
    with start(
        tmp_path, "", "triple", args=("-device", "isa-debugcon,iobase=0x402,chardev=x", "-chardev", "null,id=x")
    ) as guest:
        ending = guest.wait(180)
    assert ending.reason is Reason.RESET
    assert "either its firmware found nothing" in ending.detail


@pytest.mark.boot
def test_words_on_the_port_of_the_bios_stop_nobody(tmp_path: Path):
    """A guest that writes there more than anybody reads."""
    flood = bytes.fromhex("ba0204 b90000 b0 41 ee e2fd ba0204 b90000 ee e2fd ba0204 b90000 ee e2fd b90000 ee e2fd")
    with start(tmp_path, "through\n", "success", first=flood) as guest:
        assert guest.wait(180).good
        assert guest.console.text == "through\n"


@pytest.mark.boot
def test_a_hang_and_a_flood_run_out_of_time(tmp_path: Path):
    with start(tmp_path, "stuck\n", "hang") as guest:
        guest.expect("stuck", 30)
        assert guest.wait(0.7).reason is Reason.TIMED_OUT
    with start(tmp_path, "more and more\n", "flood") as guest:
        guest.expect("more and more", 30)
        with pytest.raises(GuestError, match="did not say"):
            guest.expect("less", 0.5)


@pytest.mark.boot
def test_typing_reaches_the_guest_byte_for_byte(tmp_path: Path):
    with start(tmp_path, "> ", "echo") as guest:
        guest.expect("> ", 30)
        guest.send(b"\x01c a\x01x \x03.")
        assert guest.expect(r"[^.]*\.", 10)[0] == "\x01c a\x01x \x03."


@pytest.mark.boot
def test_what_qemu_warns_of_is_no_failure_of_its_own(tmp_path: Path):
    """It ends with 1 as well where a guest writes 0 to isa-debug-exit."""
    with start(tmp_path, "well\n", "zero", args=("-cpu", "qemu64,+avx512f")) as guest:
        assert str(guest.wait(180)) == "the guest exited with status 0 (isa-debug-exit)"


@pytest.mark.boot
def test_qemus_own_complaint_is_a_tool_error(tmp_path: Path):
    with start(tmp_path, "", "hang", args=("-device", "no-such-device")) as guest:
        with pytest.raises(ToolError, match=re.escape("qemu-system-x86_64 failed with status 1: -device no-such")):
            guest.wait(180)
