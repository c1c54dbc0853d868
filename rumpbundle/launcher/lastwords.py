"""What a guest says last when it dies without a word that its family has for that.

The words are those of kernels and runtimes at large: NetBSD, OpenBSD, FreeBSD and many a small kernel; OSv
(runtime.cc, exceptions.cc, app.cc), IncludeOS (src/kernel/panic.cpp), Nanos (src/unix/signal.c), xv6 (console.c),
Zephyr (kernel/fatal.c, lib/os/assert.c), seL4 (assert.c), HelenOS, Zircon, tutorials' kernels in C, Rust and Zig; and
the runtimes of C, C++, Go, Rust, Ada, Nim, OCaml and Java.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

_BEFORE = r"(?:\[[^\]]*\]|<\d>|[^\w\[]){0,100}"
"""What may stand before a word: times and levels in brackets, rows of signs; of hostile lines no more than a part."""
_TIME = r"(?:\d[\dT:.,Z+-]*\s+)?"
_CPU = r"(?:(?:cpu|core|hart|thread|task|process)\W?\d+\W{1,2})?"
_SPEAKER = _BEFORE + _TIME + rf"(?:\w[\w./()-]*:\s*(?:\d+:\s*){{0,2}}|\w\s+)?(?:\[\W{{0,8}})?{_CPU}"
"""The same, and who says it: a program, a place in its source, a processor."""
_WHOSE = r"(?:(?:\w+[ _-])?kernel[ :_-]{1,2}|(?:system|hypervisor|microkernel|go|nim|rust|zig|user) |k)?"
_NONE = r"\W*(?:none|off|disabled|enabled|ok|false|true|0)\W*$"

_TOLD_OF = (
    r"(?:test|mode|handler|hook|screen|timeout|on |log|notifier|button|stack|strategy|policy|behaviou?r|action|count|"
    r"threshold|unwind|caught|recovered|serving )"
)
"""Behind the word for a panic: what a kernel has for one, and what Go's net/http says of one that it catches."""
_SET_UP = r"\W*\].*\b(?:installed|registered|ready)\W*$"
"""The same behind the word as a mark of the line."""

_FAULT = (
    r"(?:(?:general[ -])?protection|(?:stack[ -])?segment(?:ation)?|stack|page|double|triple|bus|alignment|machine"
    r"[ -]check)[ -](?:fault|exception)"
    r"|divi(?:de|sion)(?:[ -]by[ -]zero)?(?: (?:error|fault|exception))?"
    r"|(?:invalid|undefined|illegal) (?:opcode|instruction)(?: exception)?"
    r"|invalid tss|segment not present|device not available|bounds? range exceeded|coprocessor segment overrun"
    r"|#(?:DE|UD|NM|DF|TS|NP|SS|GP|PF|MF|AC|MC|XM|XF)"
    r"|segfault|bus error|floating[ -]point exception|(?:kernel )?null[ -]pointer (?:de)?reference"
)
"""The processor's own exceptions by name; breakpoints are none."""
_WHERE = (
    r"(?:\W*| (?:@|at|in|on|outside|address) .*|[!?].*|\W*\(.*\d.*|[:,]? .*(?:\b0x|\berror|\b[er]ip|\baddr|\bcr2).*"
    r"|\W*<.*\d.*)"
)
"""What follows where one was met, not told of."""
_NUMBER = r"(?:number |no\. ?|vector |#)?(?:0x)?[\da-f]{1,2}h?\b(?! ?->| ?=)"

_DEATHS = (
    _SPEAKER
    + rf"(?<!recovered: )(?<!expected: ){_WHOSE}panic(?!\w| ?=(?!=)|[./-]\w|s?:? {_TOLD_OF}|{_NONE}|{_SET_UP}).*",
    _SPEAKER + _WHOSE + rf"panick(?:ed|ing)\b(?! (?:is|on|was)\b|{_NONE}|: 0 ).*",
    rf"\[\W*(?:(?:kernel )?panic|fatal)(?!\w|{_SET_UP})\W*\].*",
    r"(?:lapicid|cpu with apicid) \d+: panic: .*",
    r".*\*{4} PANIC \*{4}.*",
    r".*\bpanicked at .*",
    r"(?:time=\S+ )?level=\W?(?:panic|fatal)\b.*",
    r"\{.*\"level\": ?\"(?:panic|fatal)\".*",
    _BEFORE + r"(?:err> )?(?:os: |E: )?(?:>>> )?ZEPHYR FATAL ERROR \d+: .*",
    _SPEAKER
    + r"(?:a )?fatal (?:\w+ )?(?:exception|error|fault|trap)\b(?! (?:test|handl|count|hook|log)|: (?:0|none)).*",
    _SPEAKER + r"fatal[:!] (?!\d|none).*",
    r"fatal trap \d+: .*",
    r"fatal .* in supervisor mode.*",
    _SPEAKER + r"unrecoverable (?:\w+ )?(?:exception|error|fault|trap)\b.*",
    _SPEAKER + r"(?:the )?system\b.{0,40} due to an? (?:fatal|unrecoverable) .*",
    r"kernel: .* trap, code=.*",
    r"seL4 (?:failed assertion|called fail) .*",
    _SPEAKER + r"(?:\*{3} )?(?:stack smashing detected|stack smashed|__stack_chk_fail)\b.*",
    r"(?:\*{3} )?signal \d+ received by tid \d+.*",
    r"terminate called (?:after|without|recursively)\b.*",
    r"libc\+\+abi: terminating\b.*",
    _SPEAKER + r"raised [A-Z_.]{5,} : .*",
    r'Exception in thread ".*" .*',
    r".*: Assertion [`'].*' failed\.?",
    r"abort(?:\(\))? (?:was )?called\W*",
    r"Aborted(?: \(core dumped\))?",
    r"program \S+ returned -?[1-9]\d*",
    r"\[backtrace\]",
    _BEFORE + r"\*+ STOP: 0x[\da-f]+.*",
    _BEFORE + r"guru meditation\b.*",
)
"""Lines that nobody says who lives on, but tests of that, and programs on a system."""
_PASSED = (
    r"PROJECT EXECUTION SUCCESSFUL|PASS(?:ED)?|\[ok\]|test result: ok\b.*|ok\s+\S+\s+[\d.]+s"
    r"|\W*(?:all|\d+)(?: \w+)? tests? (?:have |were )?(?:passed|ok|successful)\W*"
    r"|(?:\[[ \d.]+\] )?reboot: (?:power down|restarting system)\b.*"
)
"""In a line behind those: tests have passed (of Zephyr, Go, Rust and others), or Linux has shut down in order."""

_PERHAPS = (
    _SPEAKER + r"(?:error: )?(?:unhandled|uncaught) (?:\w+ )?(?:exception|interrupt|fault|trap)\b.*",
    _SPEAKER + r"unexpected (?:\w+ )?(?:exception|fault|trap)\b.*",
    _SPEAKER
    + r"(?:(?:cpu|kernel|received|got|caught|unhandled) )*exception:? "
    + rf"\(?{_NUMBER}"
    + r"(?: ?[)(,:!].*| (?:at|in|on|occurred|raised|caught|thrown|from|while)\b.*|\W*)",
    _SPEAKER
    + r"(?:(?:cpu|kernel) )?exception: [\w -]*\b(?:fault|error|opcode|zero|overflow|check|trap|exception|tss|"
    r"present|available|exceeded|overrun|point|instruction)\b.*",
    _SPEAKER + rf"(?:(?:cpu|kernel) )?exception:? (?:{_FAULT})(?!\w).*",
    _BEFORE + r"(?:[\w-]+ ){1,4}exception\W+system halted\W*",
    _SPEAKER + r"(?:kernel |cpu )?trap:? " + _NUMBER + r".*\b(?:at 0x[\da-f]+|err|error|[er]ip|cr2|addr|code)\b.*",
    _SPEAKER + rf"(?:interrupt|int|isr|trap|vector):? {_NUMBER}\W+(?:{_FAULT})\b.*",
    _SPEAKER + rf"(?:(?:unhandled|invalid|kernel|fatal) )*(?:{_FAULT}){_WHERE}",
    _SPEAKER + r"do_page_fault\b.*",
    _SPEAKER + r"(?:kernel )?stack (?:overflow|corruption|corrupted|canary (?:corrupted|mismatch|clobbered))"
    r"(?: detected)?(?:[!:].*|\W*| (?:at|in) .*)",
    _SPEAKER + r"out of memory(?:!.*|: .*|\W*)",
    _SPEAKER + r"(?:kernel )?oops\b(?! test)(?:: .*|!.*|\W*|.*\bat .*)",
    _SPEAKER + r"(?:kernel )?bug(?: at .*|_on\(.*|! .*|: (?:unable to handle|kernel|failure|bad|scheduling) .*)",
    _SPEAKER + r"(?:kernel )?k?assert(?:ion)?(?:\b|_).{0,200}?\bfail(?:ed|ure|s)?\b(?!ures?: 0).*",
    _SPEAKER + r"assertion fail\b.*",
    _SPEAKER + r"assert\b.*\w\.\w+[:(]\d+.*",
    r"ASSERT_EFI_ERROR \(.*",
    _SPEAKER + r"check failed: .*",
    _SPEAKER + r"(?:(?:the|your) )?(?:kernel|system) (?:has )?(?:crash(?:ed)?|panicked|died|fault)"
    r"(?:\W*|[:!] .*| (?:at|in) .*)",
    _BEFORE + r"crash(?:ed)?\b\W*",
)
"""Lines that some say who live on: who maps a page when it is touched, catches an exception, or tests that."""
_CALM = (
    r"(?<!not )(?<!no )(?<!not be )"
    r"\b(?:handlers?|handled|mapped|recovered|ignored|expected|tests?|passed|ok|none|breakpoint|debug|installed|"
    r"enabled|disabled|supported?|registered|cycles|0 fail\w*|fault (?:stack|ist)|cow|copy[ -]on[ -]write|demand|"
    r"lazy|lazily|allocated|resolved|fixed|emulat(?:ed|ing)|"
    r"(?:fail\w*|oops|memory|overflows?|died)\W{1,3}(?:0|no|never)$)"
    r"\b(?!\.\w)"
)
"""In such a line: it is told of, and nobody dies."""
_LIVED_ON = (
    r"(?!.*\b(?:not?|cannot|unable|fail\w*|dump\w*|\w*trace|halt\w*)\b)"
    r".*\b(?:passed|ok|success\w*|done|finished|completed?|recovered|resum\w+|continu\w+|mapped|handled|(?:good)?bye|"
    r"reboot: (?:power down|restarting system))\b.*"
)
"""In a line behind it: whoever said it went on."""
OCAML = r"Fatal error\b(?! handler).*"
"""An exception that no OCaml program handles, which tells no status where Solo5 is told to be quiet."""
UNPACKING = r".* -- System halted"
"""A Linux that cannot unpack itself: arch/x86/boot/compressed/misc.c, error()."""


@cache
def _any(*patterns: str) -> re.Pattern[str]:
    alike = [each.removeprefix(_SPEAKER) for each in patterns if each.startswith(_SPEAKER)]
    others = [each for each in patterns if not each.startswith(_SPEAKER)]
    # Who speaks is looked for once: of a hostile line that takes a while.
    return re.compile("|".join([*others, *([f"{_SPEAKER}(?:{'|'.join(alike)})"] if alike else [])]), re.IGNORECASE)


def of_anybody(lines: Sequence[str]) -> str:
    """Return the first of *lines*, a console's last, that says the guest has died; empty if none does."""
    death, perhaps, calm = _any(*_DEATHS), _any(*_PERHAPS), _any(_CALM)
    said = [line.strip() for line in lines]
    went_on, passed = _last(said, _any(_LIVED_ON)), _last(said, _any(_PASSED))
    for at, line in enumerate(said):
        if at > passed and death.fullmatch(line):
            return line
        if at > max(went_on, passed) and perhaps.fullmatch(line) and not calm.search(line):
            return line
    return ""


def _last(lines: Sequence[str], pattern: re.Pattern[str]) -> int:
    """Return the number of the last of *lines* that *pattern* describes; -1 if none does."""
    return max((at for at, line in enumerate(lines) if pattern.fullmatch(line)), default=-1)


def matching(lines: Sequence[str], pattern: str) -> str:
    """Return the first of *lines* that *pattern* describes, whatever its case; empty if none does."""
    return next((line.strip() for line in lines if re.fullmatch(pattern, line.rstrip(), re.IGNORECASE)), "")
