"""What a guest says last when it dies without a word that its family has for that.

The words are those of kernels and runtimes at large: NetBSD, OpenBSD, FreeBSD and many a small kernel; OSv
(runtime.cc, exceptions.cc, app.cc), IncludeOS (src/kernel/panic.cpp), Nanos (src/unix/signal.c), xv6 (console.c),
Zephyr (kernel/fatal.c, lib/os/assert.c), seL4 (assert.c), HelenOS, Zircon, tutorials' kernels in C, Rust and Zig; and
the runtimes of C, C++, D, Go, Rust, Ada, Pascal, Nim, OCaml, Haskell, Java, JavaScript, Python and Erlang.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

_BEFORE = r"(?:\[[^\]]*\]|<\d>|[^\w\[]){0,100}"
"""What may stand before a word: times and levels in brackets, rows of signs; of hostile lines no more than a part."""
_TIME = r"(?:\d[\dT:.,Z+-]*\s+)?"
_CPU = r"(?:(?:cpu|core|hart|thread|task|process)\W?\d+\W{1,2})?"
_SPEAKER = _BEFORE + _TIME + rf"(?:\w[\w./()-]*:\s*(?:\d+:\s*){{0,2}}|\w\s+)?(?:[\[*!#=]\W{{0,8}})?{_CPU}"
"""The same, and who says it: a program, a place in its source, a processor."""
_WHOSE = r"(?:(?:\w+[ _-])?kernel[ :_-]{1,2}|(?:system|hypervisor|microkernel|go|nim|rust|zig|user) |k)?"
_NONE = r"\W*(?:none|off|disabled|enabled|ok|false|true|0)\W*$"

_TOLD_OF = (
    r"(?:test|mode|handler|hook|screen|timeout|on (?!cpu|core|hart)|log|notifier|button|stack|strategy|policy|"
    r"behaviou?r|action|count|threshold|unwind|caught|recovered|serving |\W*(?:causes?|triggers?|forces?) )"
)
"""Behind the word for a panic: what a kernel has for one, what Go's net/http says of one that it catches, and what a
shell's help says."""
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
    r"|\W*<.*\d.*| (?:exception|error|fault|trap)\W*| (?:has )?(?:occurr?ed|happened)\b.*| - .*|\W+#\w\w\W*"
    r"| \(core dumped\)|: 0[\da-f]{3,} .*)"
)
"""What follows where one was met, not told of; a number of four digits is Linux's error code."""
_NUMBER = r"(?:(?:number|no\.|vector|code|type|id)[:=]? ?|#)?(?:0?x)?[\da-f]{1,2}h?\b(?! ?->| ?=)"

_DEATHS = (
    _SPEAKER
    + rf"(?<!recovered: )(?<!expected: ){_WHOSE}panic(?!\w| ?=(?!=)|[./-]\w|s?:? {_TOLD_OF}|{_NONE}|{_SET_UP}).*",
    _SPEAKER + _WHOSE + rf"panick?(?:ed|ing)\b(?! (?:is|on|was)\b|{_NONE}|: 0 ).*",
    r".{0,100}[!.] (?:the )?kernel panic(?:k?ed)?(?:\W*|[:!] .*)",
    rf"\[\W*(?:(?:kernel )?panic|fatal)(?!\w|{_SET_UP})\W*\].*",
    r"(?:lapicid|cpu with apicid) \d+: panic: .*",
    r".*\*{4} PANIC \*{4}.*",
    r".*\bpanicked at .*",
    r"(?:time=\S+ )?level=\W?(?:panic|fatal)\b.*",
    r"\{.*\"level\": ?\"(?:panic|fatal)\".*",
    _BEFORE + r"(?:err> )?(?:os: |E: )?(?:>>> )?ZEPHYR FATAL ERROR \d+: .*",
    _SPEAKER + r"(?:(?:a|kernel|system) )?fatal (?:\w+ )?(?:exception|error|fault|trap)\b"
    r"(?! (?:test|handl|count|hook|log)|: (?:0|none)).*",
    _SPEAKER + r"(?:kernel )?fatal(?:[:!]| -) (?!\d|none).*",
    r"fatal trap \d+: .*",
    r"fatal source: \d+ \((?!RTEMS_FATAL_SOURCE_EXIT\)).*",
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
    r"abort(?:\(\))? (?:was )?called\W*|.*\babort\(\)ed",
    _BEFORE + r"(?:kernel pid terminated|runtime terminating during boot|init terminating in do_boot)\b.*",
    r"Aborted(?: \(core dumped\))?",
    r"program \S+ returned -?[1-9]\d*",
    r"\[backtrace\]",
    _BEFORE + r"\*+ STOP: 0x[\da-f]+.*",
    _BEFORE + r"guru meditation\b.*",
)
"""Lines that nobody says who lives on, but tests of that, and programs on a system."""
_PASSED = (
    r"PROJECT EXECUTION SUCCESSFUL|PASS(?:ED)?|\[ok\]|(?:.* )?test result: (?:ok|success|pass)\b.*|ok\s+\S+\s+[\d.]+s"
    r"|\W*(?:all|\d+)(?: \w+)? tests? (?:have |were )?(?:passed|ok|successful)\W*"
    r"|(?:\[[ \d.]+\] )?reboot: (?:power down|restarting system)\b.*"
)
"""In a line behind those: tests have passed (of Zephyr, Go, Rust and others), or Linux has shut down in order."""

_PERHAPS = (
    _SPEAKER + r"(?:error: )?(?:unhandled|uncaught) (?:\w+ ){0,3}?(?:panic|exception|interrupt|fault|trap)\b.*",
    _SPEAKER + r"(?:uncaught [\w.]*error|(?:unknown|unimplemented) (?:cpu )?exception)\b.*",
    _SPEAKER + r"(?!no )(?:an? |the )?(?:\w+ ){0,2}exception (?:has )?occurr?ed\b.*",
    _SPEAKER + r"unexpected (?:\w+ )?(?:exception|fault|trap)\b.*",
    _SPEAKER
    + r"(?:(?:cpu|kernel|received|got|caught|unhandled) )*exception\W{0,3} ?"
    + rf"\(?{_NUMBER}"
    + r"(?: ?[)(,:!].*| (?:at|in|on|error|occurred|raised|caught|thrown|from|while)\b.*|\W*)",
    _SPEAKER
    + r"(?:(?:cpu|kernel) )?exception: [\w -]*\b(?:fault|error|opcode|zero|overflow|check|trap|exception|tss|"
    r"protection|bounds|coprocessor|interrupt|reserved|present|available|exceeded|overrun|point|instruction)\b.*",
    _SPEAKER + rf"(?:(?:cpu|kernel) )?exception:? (?:{_FAULT})(?!\w).*",
    _BEFORE + r"(?:[\w-]+ ){1,4}exception\W+system halted\W*",
    _SPEAKER + r"(?:kernel |cpu )?trap:? " + _NUMBER + r".*\b(?:at 0x[\da-f]+|err|error|[er]ip|cr2|addr|code)\b.*",
    _SPEAKER + rf"(?:interrupt|int|isr|trap|vector):? {_NUMBER}\W+(?:{_FAULT})\b.*",
    _SPEAKER + rf"(?:(?:unhandled|invalid|kernel|fatal|cpu|an?|the) )*(?:{_FAULT}){_WHERE}",
    _SPEAKER + r"do_page_fault\b.*",
    _SPEAKER + r"(?:kernel )?(?:stack|heap|memory) (?:overflow|corruption|corrupted|"
    r"canary (?:corrupted|mismatch|clobbered))(?: detected)?(?:[!:].*|\W*| (?:at|in) .*)",
    _SPEAKER + r"out of memory(?:!.*|: .*|\W*)",
    _SPEAKER + r"(?:(?:internal|critical|kernel|system) (?:error|failure)(?:[:!].*|\W*)|double[ -]free\b.*)",
    _SPEAKER + r"(?:memory allocation of \d+ bytes failed|pure virtual (?:function|method) call|"
    r"runtime error \d+ at ).*",
    r"(?:traceback|trace) \(most recent call last\):",
    r"(?:\w+\.)+\w+@[\w./-]+\(\d+\): .*",
    r"SIG(?:SEGV|BUS|ILL|FPE|ABRT): .*",
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
    r"(?:fail\w*|oops|corrupt\w*|memory|overflows?|died)\W{1,3}(?:0|no|never)$)"
    r"\b(?!\.\w)"
)
"""In such a line: it is told of, and nobody dies."""
_LIVED_ON = (
    r"(?!.*\b(?:not?|cannot|unable|fail\w*|dump\w*|\w*trace|halt\w*)\b)"
    r".*\b(?:passed|ok|success\w*|done|finished|completed?|recovered|resum\w+|continu\w+|mapped|handled|(?:good)?bye|"
    r"reboot: (?:power down|restarting system))\b.*"
)
"""In a line behind it: whoever said it went on."""
_HALTS = r"\b(?:halt(?:ed|ing)?(?! on\b)|powering off|(?:cannot|can't) continue)\b"
_WHY = (
    rf"\b(?:{_FAULT}|exception|panic|fatal|error|fail(?:ed|ure)|cannot|can't|could not|unable|out of memory|"
    r"no memory|corrupted)\b"
)
_ALL_THE_SAME = (
    r"\b(?:power|poweroff|acpi|apm|shut|shutdown|reboot|reset|exit|qemu|without|no|0(?:x0+)?|until|if|when)\b"
)
"""In a line with both: who halts as it cannot switch the machine off has done its work."""
_RESULT = (
    r"(?P<bad>PROJECT EXECUTION FAILED|(?:.* )?test result: (?:fail\w*|error|crash)\b.*"
    r"|\W*(?:(?:overall|final|test) )?(?:results?|overall): fail(?:ed|ure)?\W*"
    r"|FAIL(?:ED)?(?:\s+\S+\s+[\d.]+s)?|\W*(?:some )?tests? (?:have |suite )?failed\W*"
    r"|\W*FAILURES DETECTED\W*|\[ +FAILED +\] [1-9]\d* tests?\b.*"
    r"|FAILED \((?:failures|errors)=.*|not ok \d+\b(?!.*# *(?:todo|skip)).*)"
    r"|(?=.*\b(?:tests?|pass(?:ed|es)?)\b)(?:.*\D)?(?<!of )(?P<failed>\d+)(?: (?:of|out of) \d+)?(?: tests?)?"
    r"(?: have| were)? fail(?:(?:ed|ures?)\b(?![:=]| as expected)|s?\b(?![:=]? ?\d)).*"
    r"|(?=.*\b(?:tests?|pass(?:ed|es)?)\b).*\bfail(?:ed|ures?|s)?(?: tests?)?"
    r"(?:[:=] *(?P<failures>\d+)\b.*| (?P<fails>\d+)\W*)"
    rf"|{_BEFORE}(?:(?:the )?(?:program|application|app|kernel)(?:: )? ?)?(?:exit(?:ed|ing)? )(?:with )?(?:exit )?"
    r"(?:code|status)[:=]? (?P<status>-?\d+)(?:\W*| halting\W*)"
    r"|fatal code: (?P<code>\d+) \(0x.*"
    rf"|{_BEFORE}main(?:\(\))? returned:? (?P<returned>-?\d+)(?:\W*|, halting.*)"
)
"""How many tests of a guest failed, or its program's status, as RTEMS' fatal code behind an exit."""
_TYPED = r"(?:\S{0,40}[\w~/:)\]])?[$#>] \S.*"
_LAST = 10
"""Lines behind the status of a guest's only program; behind another's a shell takes the next command, or the guest
has much more to say."""
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
        if at > max(went_on, passed) and (perhaps.fullmatch(line) or _halts(line)) and not calm.search(line):
            return line
    return ""


def _halts(line: str) -> bool:
    """Whether *line* says that it halts for a failure."""
    found, why = (_any(each).search(line) for each in (_HALTS, _WHY))
    if found is None or why is None or _any(_ALL_THE_SAME).search(line):
        return False
    return ";" not in line[max(found.end(), why.end()) :]


def result(lines: Sequence[str]) -> tuple[int, str]:
    """Return the status of the last of *lines* that tells one, and the line; 1 for failed tests, 0 if none does."""
    passed, runs_on = _any(_PASSED), False
    for behind, line in enumerate(line.strip() for line in reversed(lines)):
        if passed.fullmatch(line):
            break
        if match := _any(_RESULT).fullmatch(line):
            if match["bad"] or int(match["failed"] or match["failures"] or match["fails"] or 0):
                return 1, line
            told = match["status"] or match["returned"]
            if told and (runs_on or behind > _LAST):
                continue
            status = int(told or match["code"] or 0)
            return status, line if status else ""
        runs_on = runs_on or _any(_TYPED).fullmatch(line) is not None
    return 0, ""


def _last(lines: Sequence[str], pattern: re.Pattern[str]) -> int:
    """Return the number of the last of *lines* that *pattern* describes; -1 if none does."""
    return max((at for at, line in enumerate(lines) if pattern.fullmatch(line)), default=-1)


def matching(lines: Sequence[str], pattern: str) -> str:
    """Return the first of *lines* that *pattern* describes, whatever its case; empty if none does."""
    return next((line.strip() for line in lines if re.fullmatch(pattern, line.rstrip(), re.IGNORECASE)), "")
