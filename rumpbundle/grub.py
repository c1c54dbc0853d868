"""GRUB's configuration: one text that starts what was bundled."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from rumpbundle.bootloader import choice
from rumpbundle.dataclass import dataclass
from rumpbundle.errors import InputError
from rumpbundle.kernels.unikernel import Firmware, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Menu:
    """What ``grub.cfg`` is to do. Paths are inside the image."""

    marker: str
    """A file only this bundle's image has; GRUB finds its root by it."""
    boot: Mapping[Firmware, Protocol]
    kernel: str
    cmdline: str
    modules: tuple[tuple[str, str], ...]
    """Path and command line of each."""
    cmdline_limit: int | None = None
    """The most bytes the kernel takes as its command line, where its header says so."""
    console: str = "both"
    kinds: tuple[str, ...] = ()
    """The kinds of identity that choose another configuration than this; empty if there is no other."""
    default: bool = True
    """Whether this is for every machine for which there is no other."""


_HALT = ("sleep 10", "halt")


def config(menu: Menu) -> str:
    """Return the text of ``grub.cfg``: boot one kernel at once, or say on every console why not, and halt.

    Raises:
        InputError: a name or command line cannot reach the guest unchanged.
    """
    lines = ["# Written by rumpbundle: boots one kernel and asks nothing."]
    lines += _console(menu.console)
    lines.append(f"search --file --set=root --hint $root {quote(menu.marker)}")
    start = _starts(menu) if menu.default else [*choice.nothing(), *_HALT]
    if menu.kinds:
        start = [
            *choice.lookup(menu.kinds, everything=not menu.default),
            'if [ "x$config" != x ]; then',
            f"  {choice.START}",
            "else",
            *start,
            "fi",
        ]
    lines += start
    lines.append("echo 'rumpbundle: the kernel did not start; the reason is above. Halting.'")
    lines += _HALT
    return "\n".join(lines) + "\n"


def script(menu: Menu) -> str:
    """Return the text of the script that boots *menu*'s kernel, for some machines only: grub.cfg reads it.

    Raises:
        InputError: as :func:`config`.
    """
    return "\n".join(_starts(menu)) + "\n"


def _starts(menu: Menu) -> list[str]:
    """Return the lines that boot the kernel."""
    efi, bios = _start(menu, Firmware.UEFI), _start(menu, Firmware.BIOS)
    return ['if [ "$grub_platform" = efi ]; then', *efi, "else", *bios, "fi"]


def _console(console: str) -> list[str]:
    if console == "vga":
        return ["terminal_output console", "terminal_input console"]
    both = "console serial" if console == "both" else "serial"
    return [
        # A machine without COM1 has no serial terminal; then the screen is all there is.
        "if serial --unit=0 --speed=115200; then",
        # Serial consoles are logged and read in terminals that are somebody's: GRUB must not clear them.
        "  terminfo serial dumb",
        f"  terminal_output {both}",
        f"  terminal_input {both}",
        # GRUB programs the port when it first writes to it, and a kernel may rely on that: a harmless first byte.
        r"  echo -n -e '\r'",
        "fi",
    ]


def _start(menu: Menu, firmware: Firmware) -> list[str]:
    protocol = menu.boot.get(firmware)
    if protocol is None:
        other = "UEFI" if firmware is Firmware.BIOS else "BIOS"
        return [f"  echo 'rumpbundle: this kernel cannot start under {firmware.upper()} firmware; use {other}.'"]
    if protocol is Protocol.EFI:
        return ["  echo 'rumpbundle: this is an EFI application, which firmware starts: EFI/BOOT/BOOTX64.EFI.'"]
    commands = [f"{protocol} {quote(menu.kernel)}{_arguments(menu.cmdline)}"]
    if protocol in (Protocol.LINUX, Protocol.LINUX16):
        _check_linux_line(menu)
        if menu.modules:
            initrd = "initrd" if protocol is Protocol.LINUX else "initrd16"
            commands.append(" ".join([initrd, *(quote(path) for path, _ in menu.modules)]))
    else:
        module = "module" if protocol is Protocol.MULTIBOOT else "module2"
        # Else GRUB unpacks a gzip file it is given as a module: the guest would not get what the user gave.
        commands += [f"{module} --nounzip {quote(path)}{_arguments(text)}" for path, text in menu.modules]
    # Flat, each step only after the last went well: GRUB runs nothing that is nested 50 deep, and says nothing.
    steps = [f'  if [ "$loaded" ]; then loaded=; if {command}; then loaded=yes; fi; fi' for command in commands]
    return ["  loaded=yes", *steps, '  if [ "$loaded" ]; then boot; fi']


def _check_linux_line(menu: Menu) -> None:
    """Raise unless the command line arrives whole behind the ``BOOT_IMAGE=PATH`` that GRUB puts first.

    GRUB leaves out the words for which there is no room, without a word (grub_create_loader_cmdline).
    """
    _check_rewritten(menu.kernel, "kernel's name, which Linux gets as BOOT_IMAGE=", "rename the kernel")
    path = f'"{menu.kernel}"' if " " in menu.kernel else menu.kernel
    length = len(f"BOOT_IMAGE={path} {menu.cmdline}".encode("utf-8", "surrogateescape"))
    if menu.cmdline_limit is not None and length > menu.cmdline_limit:
        raise InputError(
            f"the kernel takes {menu.cmdline_limit} bytes of command line; with BOOT_IMAGE= this is {length}",
            where="--cmdline",
        )


def quote(text: str) -> str:
    """Return *text* as one word of GRUB's script language, every byte as it is.

    Raises:
        InputError: it holds a newline or NUL, which no GRUB line can.
    """
    check_line(text)
    return "'" + text.replace("'", "'\\''") + "'"


def check_line(text: str) -> None:
    """Raise :class:`InputError` if *text* holds what no GRUB line can carry."""
    for character, name in (("\n", "a newline"), ("\r", "a carriage return"), ("\0", "a NUL byte")):
        if character in text:
            raise InputError(f"{name} cannot pass through the boot loader", where=repr(text))


WORD_LIMIT = 8188
"""Bytes of a word in quotes; GRUB 2.06 stands still over 8189 and more."""
WORDS_LIMIT = 9000
"""Words of a line; GRUB 2.06's parser ends with ``memory exhausted`` short of 10,000."""
_QUOTED = re.compile(r'"([^"\\\']* [^"\\\']*)"(?= |$)')


def _arguments(text: str) -> str:
    """Return *text* as arguments after which GRUB, joining them with blanks, gives the guest *text* again.

    An argument that holds blanks GRUB wraps in double quotes, so exactly the words so wrapped are given to it as one;
    runs of blanks survive as empty words.
    """
    words: list[str] = []
    position = 0
    while text and position <= len(text):
        if match := _QUOTED.match(text, position):
            words.append(match[1])
            position = match.end() + 1
        else:
            words.append(text[position:].partition(" ")[0])
            position += len(words[-1]) + 1
    hint = "leave it out, or pass it in a module or file, which arrive byte for byte"
    _check_rewritten(" ".join(words), "command line", hint)
    return _words(words)


def _words(words: Sequence[str]) -> str:
    """Return *words* as arguments in GRUB's script language.

    Raises:
        InputError: they are more, or one is longer, than GRUB's script reader can take.
    """
    longest = max((len(word.encode("utf-8", "surrogateescape")) for word in words), default=0)
    if longest > WORD_LIMIT or len(words) > WORDS_LIMIT:
        found = f"{longest} bytes" if longest > WORD_LIMIT else f"{len(words)} words"
        raise InputError(
            f"GRUB reads at most {WORDS_LIMIT} words of at most {WORD_LIMIT} bytes on a line, this has {found}",
            hint="pass it in a module or file",
        )
    return "".join(f" {quote(word)}" for word in words)


def _check_rewritten(text: str, what: str, hint: str) -> None:
    """Raise if GRUB would put a backslash before something in *text* (grub_create_loader_cmdline)."""
    for character in ("\\", '"', "'"):
        if character in text:
            raise InputError(
                f"GRUB would put a backslash before each {character} of this {what}", where=repr(text), hint=hint
            )
