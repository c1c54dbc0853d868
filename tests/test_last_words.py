"""Words with which kernels and runtimes die, and words that only sound so."""

from __future__ import annotations

import time

import pytest

from rumpbundle.kernels.unikernel import Family
from rumpbundle.launcher import lastwords
from rumpbundle.launcher.backend import Ending, Reason
from rumpbundle.launcher.console import Console
from rumpbundle.launcher.endings import Endings

DEATHS = """
EXCEPTION: INVALID TSS
Exception: Segment Not Present
EXCEPTION: DEVICE NOT AVAILABLE
EXCEPTION: BOUND RANGE EXCEEDED
Exception: Coprocessor Segment Overrun
EXCEPTION: SIMD FLOATING POINT
CPU exception: #PF
CPU EXCEPTION: 14
CPU exception 0xe, error 0x2
Exception 14: Page Fault
EXCEPTION 13 (General Protection Fault)
Received exception 14
Interrupt 14: page fault
INT 0x0E (page fault) err=2
trap 14 err 2 on cpu 0 eip 0x1000
Trap 14 at 0x1000
Invalid Opcode at 0x1000
Divide-by-zero error!
DIVIDE ERROR
#PF! <2:DEADBEEF>
#GP at rip 0x1000
page fault @ 0xdeadbeef (access=w)
page fault outside application, addr: 0x0000000000000000
do_page_fault(): cr2= deadbeef
segfault at 0 ip 0x1000
Segmentation fault
BUG: kernel NULL pointer dereference, address: 0x0
NULL pointer dereference at 0x10
[kernel] Hart 0, Panicked: no memory
[kernel] Panicked: no memory
KPANIC! out of memory
kernel_panic: no memory
thread 1 panic: reached unreachable code
CPU 0 panic: x
CPU#0: KERNEL PANIC
core 0 panicked: x
-[ KERNEL PANIC ]-
<0>panic: foo
SYSTEM PANIC
E/kernel: panic: x
2026-01-01T00:00:00Z PANIC x
level=panic msg="no"
{"level":"fatal","msg":"no"}
Fatal error!
FATAL ERROR in kmain
A fatal error has occurred
The system has been halted due to a fatal error
FATAL! no memory
Unrecoverable error
terminate called after throwing an instance of 'std::runtime_error'
libc++abi: terminating due to uncaught exception of type int
raised CONSTRAINT_ERROR : main.adb:12 range check failed
Error: unhandled exception: index 5 not in 0 .. 4 [IndexDefect]
Exception in thread "main" java.lang.NullPointerException
abort() called
Aborted (core dumped)
[backtrace]
program /app.so returned 1
Stack overflow detected
__stack_chk_fail: stack smashed
Out of memory!
ASSERT: x at main.c:12
main.c:12: assertion failed: x
Assertion x failed, file main.c, line 12
Assertion failure: x
KASSERT failed: x
assertion x failed at /src/runtime/heap.c:12 (IP 0x1)  in allocate(); halt
ASSERT_EFI_ERROR (Status = Not Found)
BUG! mm.c:12
KERNEL CRASH: x
*** STOP: 0x0000001E
=== KERNEL PANIC ===
EXCEPTION (14)
Page fault at 0x1000: address not mapped
Exception 14: no handler
Page fault at 0x1000 (could not be handled)
Exception #PF at 0x1000
Bus error
Floating point exception
The kernel has panicked
Your system has crashed!
src/main.rs:12:5: panic: x
panic: boom [recovered]
[PANIC] handler failed
[panic]
PANIC on cpu 0: no memory
Oh no! The kernel panicked!
JDB: *** KERNEL PANIC ***
kernel paniced
Kernel fatal: out of memory
FATAL - page fault
Exception: Bad TSS
EXCEPTION: OUT OF BOUNDS
Exception: Non-maskable Interrupt
Exception: Unknown Interrupt
Page Fault Exception
A page fault occurred!
CPU Exception x0E occurred
An exception has occurred: page fault
Exception vector: 0x0e
[EXCEPTION] 14
Unknown exception 14
#DF - Double Fault
Page Fault (#PF)
general protection fault: 0000 [#1] SMP
Illegal instruction (core dumped)
[rm]: unhandled read page fault @0 pc=1000
Divide by zero - System halted
Unknown error - System halted.
System halted due to exception.
Kernel halted: page fault
The kernel has met an error and must halt
Halting: out of memory
Failed to load object: /app.so. Powering off.
KERNEL ERROR: page fault
System failure
Heap corruption detected
fatal source: 9 (RTEMS_FATAL_SOURCE_EXCEPTION)
ERROR: Uncaught panic:
double free or corruption (out)
app: internal error: evacuate: strange closure type 7
memory allocation of 123 bytes failed
pure virtual method called
Runtime error 216 at $00001000
Uncaught TypeError: x is not a function
object.Exception@main.d(3): no
SIGSEGV: Illegal storage access. (Attempt to read from nil?)
Traceback (most recent call last):
Kernel pid terminated (application_controller) ({application_start_failure})
seL4 root server abort()ed
"""

ALL_IS_WELL = """
Page fault at 0x1000: mapped
Page fault at 0x1000 (not present, expected)
#PF handler installed
[ok] #PF handler at 0x1000
exception 14 -> vector 0x8e
EXCEPTION: BREAKPOINT
Exception 3 (breakpoint)
assertion tests: all passed
Assertion failures: 0
ASSERT test passed
0 assertions failed
No assertion failed
No fatal errors
kpanic handler ready
panic_handler: set
panic: none
panic timeout: 10
panic on oops: 1
Panicking is disabled
panicked: 0 threads
crash kernel: not reserved
kernel crash dump: disabled
System halted.
Stack overflow protection enabled
stack canary: 0xdeadbeef
out of memory test: ok
Divide by zero test: ok
division by zero: caught, ok
trap 14: gate 0x8e00
Interrupt 14: IDE
program /app.so returned 0
received interrupt: 32
Double fault stack: 0x9000
TSS: double fault IST at 0x9000
Machine check exception support: yes
[backtrace] disabled
terminate called: no
panic strategy: abort
panic = 10
panic-on-oops: on
panic_unwind v0.0.0
panic.c: 12 lines
panics: 0
panic count: 3
panicked: false
recovered: panic: boom
http: panic serving 10.0.0.1:1: boom
[panic] hook installed
[PANIC] handler registered
assertions failed: 0
oops: 0
Page fault at 0x400000 (write): copy on write
Page fault at 0x400000, allocated frame 0x1000
#NM at 0x1000: lazy FPU
Illegal instruction at 0x1000: emulated
panic on oops: 1
All done! Kernel panics: 0
kernel fatal: none
Exception: interrupts enabled
Page Fault Exception handler installed
No exception has occurred
exception vector 0 installed
Exception type: none
Unknown exceptions: 0
Page fault - mapped
page fault: 0 so far
ACPI power off failed, halting
Power off failed. System halted
Could not exit QEMU, halting
halt on error: yes
Halted without error
0 errors, halting
If the kernel cannot continue it halts
system error log: empty
System error: none
heap corruption: none
double free test passed
runtime error checks: on
Pure virtual functions: 3
SIGSEGV: handler installed
root@main.example
Kernel processes terminated
panic         - cause a kernel panic
System halted. Error code: 0x0
"""


def ending(family: Family, text: str, noticed: Reason = Reason.HALTED) -> Ending:
    console, endings = Console(), Endings(family)
    endings.watch(console)
    console.feed(f"boot\n{text}\n".encode())
    return endings.explained(Ending(noticed))


@pytest.mark.parametrize("said", DEATHS.strip().splitlines())
def test_who_says_so_dies(said: str):
    assert ending(Family.PLAIN, said) == Ending(Reason.CRASHED, None, said)
    assert ending(Family.PLAIN, f"said: it is no {said}; all is well").good


@pytest.mark.parametrize("said", ALL_IS_WELL.strip().splitlines())
def test_who_says_so_lives(said: str):
    assert ending(Family.PLAIN, said).good


@pytest.mark.parametrize(
    "said", ["Page fault at 0x1000", "Exception 14 at 0x1000", "Oops: 0002 [#1]", "Out of memory!"]
)
def test_who_speaks_of_success_behind_it_has_lived_on(said: str):
    """A kernel that maps pages when they are touched logs a fault, and goes on; what died does not."""
    assert ending(Family.PLAIN, f"{said}\nread 7\nall tests passed", Reason.POWERED_OFF).good
    assert ending(Family.PLAIN, f"{said}\n[ 9.0] reboot: Power down", Reason.POWERED_OFF).good
    assert not ending(Family.PLAIN, f"{said}\nrax 0\nstack trace done\nnot ok\nhalted", Reason.POWERED_OFF).good
    assert not ending(Family.PLAIN, f"all tests passed\n{said}\n").good
    assert not ending(Family.PLAIN, f"panic: {said}\nall done").good


@pytest.mark.parametrize(
    ("died", "passed"),
    [
        (">>> ZEPHYR FATAL ERROR 0: CPU exception on CPU 0", "PROJECT EXECUTION SUCCESSFUL"),
        ("thread 'main' panicked at src/main.rs:1:2:", "test result: ok. 3 passed; 0 failed; 0 ignored"),
        ("panic: boom", "--- PASS: TestPanic (0.00s)\nPASS\nok  \texample.com/x\t0.1s"),
        ("panicked at src/main.rs:1:2: should panic", "[ok]"),
        ("FATAL ERROR: as expected", "all 12 tests passed!"),
        ("Aborted (core dumped)", "[   12.345678] reboot: Power down"),
        ("thread 'main' panicked at src/main.rs:1:2:", "reboot: Restarting system"),
    ],
)
def test_who_tests_that_or_is_a_program_on_a_system_has_lived_on(died: str, passed: str):
    assert ending(Family.PLAIN, f"{died}\nr0 0x0\n{passed}\n", Reason.POWERED_OFF).good
    assert not ending(Family.PLAIN, f"{passed}\n{died}\nr0 0x0\n", Reason.POWERED_OFF).good


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ("3 tests FAILED", 1),
        ("1 of 12 tests failed", 1),
        ("7 passed, 2 failed", 1),
        ("passed: 7 failed: 2", 1),
        ("=== 1 failed, 2 passed in 0.12s ===", 1),
        ("Tests failed: 2", 1),
        ("Some tests failed!", 1),
        ("*** FAILURES DETECTED ***", 1),
        ("[  FAILED  ] 1 test, listed below:", 1),
        ("test result: FAILED. 2 passed; 1 failed; 0 ignored", 1),
        ("Test result: FAILURE", 1),
        ("PROJECT EXECUTION FAILED", 1),
        ("FAIL\texample.com/x\t0.1s", 1),
        ("3 Tests 1 Failures 0 Ignored", 1),
        ("# Totals: pass:2 fail:1 skip:0 total:3", 1),
        ("RESULT: FAIL", 1),
        ("*** FATAL ***\nfatal source: 5 (RTEMS_FATAL_SOURCE_EXIT)\nfatal code: 3 (0x00000003)", 3),
        ("*** FATAL ***\nfatal source: 5 (RTEMS_FATAL_SOURCE_EXIT)\nfatal code: 0 (0x00000000)", 0),
        ("3 Tests 0 Failures 0 Ignored", 0),
        ("# Totals: pass:3 fail:0 skip:0 total:3", 0),
        ("pass 3 fail 0", 0),
        ("main returned -1", -1),
        ("exit with code 3 halting", 3),
        ("program exited with status 2", 2),
        ("0 tests failed", 0),
        ("3 passed, 0 failed", 0),
        ("passed: 3 failed: 0", 0),
        ("10 tests, 0 failures", 0),
        ("Test result: SUCCESS", 0),
        ("main returned 0", 0),
        ("exit with code 0 halting", 0),
        ("Exit code: 0", 0),
        ("read: returned 7", 0),
        ("sh: exited with code 1", 0),
        ("process 2 exited with code 1", 0),
        ("Self test: floppy failed", 0),
        ("[FAIL] no floppy", 0),
        ("3 tests FAILED, once more\nall 3 tests passed", 0),
        ("1 of 3 tests failed\n3 passed, 0 failed", 0),
        ("all 3 tests passed\n1 of 3 tests failed", 1),
        ("FAIL\n[   12.345678] reboot: Power down", 0),
        ("0 of 5 tests failed", 0),
        ("test 3 failed as expected", 0),
        ("Login failed: 3 attempts; password wrong", 0),
        ("exit code: 1\nroot@box:/# poweroff", 0),
        ("exit code: 1" + "\nserved one more" * 11, 0),
        ("not ok 1 - floppy # TODO later", 0),
        ("ok 1 - disk\nnot ok 2 - floppy", 1),
        ("Passed 12, failed 3", 1),
        ("pass 3 fail 1", 1),
        ("Ran 3 tests in 0.001s\nFAILED (failures=1)", 1),
    ],
)
def test_who_tells_a_status_in_words_or_counts_failed_tests_has_ended_with_that(said: str, status: int):
    found = ending(Family.PLAIN, f"{said}\nSystem halted.")
    assert (found.status or 0, found.good) == (status, status == 0)
    assert found.reason is Reason.HALTED
    assert found.detail == (f"it said: {said.splitlines()[-1]}" if status else "")


@pytest.mark.parametrize(
    ("family", "said"),
    [
        (Family.LINUX, "PANIC: early exception 0x0e IP 10:ffffffff81000000 error 0 cr2 0x0"),
        (Family.LINUX, "Kernel panic: VFS: Unable to mount root fs on 03:01"),
        (Family.XEN, "(XEN) Hardware Dom0 shutdown: watchdog rebooting machine"),
        (Family.XEN, "(XEN) Hardware Dom1 crashed: rebooting machine in 5 seconds."),
        (Family.HERMIT, "[0][!!!PANIC!!!] panicked at 'no', src/main.rs:3"),
        (Family.SOLO5, "Fatal error in uncaught exception handler: exception Not_found"),
        (Family.SOLO5, "Aborted"),
        (Family.SOLO5, "thread 'main' panicked at src/main.rs:1"),
    ],
)
def test_families_of_their_own_words(family: Family, said: str):
    assert not ending(family, said, Reason.POWERED_OFF).good


@pytest.mark.parametrize(
    "piece",
    ["[]", "[][", "[] ", "-", "#", "() ", "./", "a.", "1:", "kernel ", "ok ", "<1>", "1 ", "halt error ", "test "],
)
def test_no_console_makes_the_search_long(piece: str):
    start = time.monotonic()
    lastwords.of_anybody([(piece * 512)[:512]] * 100)
    lastwords.result([(piece * 512)[:512]] * 100)
    assert time.monotonic() - start < 5
