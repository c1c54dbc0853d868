"""The command line: parses, calls the library, and says what happened. Nobody imports it.

One module a command, loaded when it is used; a format is a command of its own.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from rumpbundle import __version__
from rumpbundle import formats as registry  # rumpbundle.cli.formats is a command
from rumpbundle.cli import streams
from rumpbundle.cli.command import help_option
from rumpbundle.errors import (
    NO_MEMORY,
    HostError,
    Interrupted,
    RumpbundleError,
    UsageError,
    is_want_of_memory,
    nearest,
)
from rumpbundle.host import environment, signals
from rumpbundle.host.shell import quoted

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

SECTIONS: Mapping[str, tuple[str, ...]] = {
    "Images": ("build", "fleet", "convert", "reconfig"),
    "Look and check": ("inspect", "check", "verify", "diff", "ls", "cat"),
    "Boot": ("boot", "run"),
    "Helpers": ("init", "config", "volume", "component", "formats", "completion", "help", "version"),
}
"""The commands that are no formats, as the help shows them: modules of this package with a ``command``."""

_COMMANDS = tuple(name for names in SECTIONS.values() for name in names)

_FEW = 6
"""Commands that a hint names: fewer than this."""
_READER_GONE = 141
"""What a shell says of a program that SIGPIPE ended: nobody reads our output any more."""


class _Commands(click.Group):
    """All formats and all commands, found by name without loading the others."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> click.Context:
        return super().make_context(info_name, _with_boot_command(args), parent, **extra)

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        return help_option(super().get_help_option(ctx))

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*registry.names(), *sorted(_COMMANDS)]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        name = registry.ALIASES.get(name, name)
        if name in registry.names():
            from rumpbundle.cli.one_format import format_command

            return format_command(registry.find(name))
        if name in _COMMANDS:
            command = importlib.import_module(f"rumpbundle.cli.{name}").command
            assert isinstance(command, click.Command)
            return command
        return None

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        boot = [CompletionItem("--boot")] if incomplete.startswith("-") and "--boot".startswith(incomplete) else []
        return [*boot, *super().shell_complete(ctx, incomplete)]

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        name = args[0]
        known = [*self.list_commands(ctx), *registry.ALIASES]
        if name not in known and not name.startswith("-"):
            raise UsageError(f"no such command {name!r}", hint=_advice(name, known))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        also: dict[str, str] = {}
        for alias, name in registry.ALIASES.items():
            also[name] = f"{also[name]}, {alias}" if name in also else f"also: {alias}"
        with formatter.section("Formats (rumpbundle FORMAT APP)"):
            formatter.write_dl(
                [(each.name, f"{each.summary}{f' ({also[each.name]})' if each.name in also else ''}")
                 for each in registry.formats()]
            )  # fmt: skip
        for title, names in SECTIONS.items():
            with formatter.section(title):
                rows = [(name, command.get_short_help_str(80)) for name in names
                        if (command := self.get_command(ctx, name)) is not None]  # fmt: skip
                if title == "Boot":
                    rows.insert(0, ("--boot qemu|xl", "bundle APP, boot it, clean up: the quick iteration"))
                formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            # Left to click, an empty line would come before ours.
            raise Interrupted from None


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="rumpbundle COMMAND --help tells a command's options, rumpbundle help lists the pages of documentation.",
)
@click.version_option(__version__, "-V", "--version", message="rumpbundle %(version)s")
def cli() -> None:
    """Turn a bootable kernel, its data and configuration into a machine image.

    \b
      rumpbundle iso app.bin               app.iso, for CD, disk and USB
      rumpbundle --boot qemu app.bin       boot it here, with its console
    """


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    signals.handle()
    streams.prepare()
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _status(arguments)
    finally:
        streams.settle()


def _status(arguments: list[str]) -> int:
    """Do what *arguments* say, tell the error if there is one, and return the exit status."""
    try:
        with environment.threads_needed():
            status = cli.main(arguments, prog_name="rumpbundle", standalone_mode=False)
        return status if isinstance(status, int) else 0
    except RumpbundleError as error:
        return _fail(str(error), error.hint, error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        for line in error.format_message().splitlines():
            streams.tell(line)
        return 2
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        hint = _with_two_dashes(context, arguments) or _elsewhere(error, context, arguments)
        # What we know better than click's guess stands alone.
        said = error.message if hint and isinstance(error, click.NoSuchOption) else error.format_message()
        return _fail(_lower_first(said), hint or f"{_path(context, arguments)} --help", 2)
    except (KeyboardInterrupt, click.Abort):
        return _fail("interrupted", None, Interrupted.exit_code)
    except (streams.ReaderGone, BrokenPipeError):
        return _READER_GONE
    except SystemExit as leaving:
        # Click leaves like this after completing a word; and when it is the help that nobody reads.
        return _READER_GONE if isinstance(leaving.__context__, OSError) else int(leaving.code or 0)
    except RecursionError:
        return _fail("the input is nested too deep", None, 2)
    except (MemoryError, ImportError, SyntaxError, SystemError) as error:
        if not is_want_of_memory(error):
            raise
        return _fail(NO_MEMORY, None, HostError.exit_code)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        gone = not where and isinstance(error, FileNotFoundError)
        what = "the current directory is gone" if gone else error.strerror or error
        return _fail(f"{where}{what}", None, HostError.exit_code)


def _with_boot_command(arguments: list[str]) -> list[str]:
    """Return *arguments* with ``rumpbundle --boot qemu APP`` spelled as the command it stands for."""
    ours = arguments[: arguments.index("--")] if "--" in arguments else arguments
    boots = any(word == "--boot" or word.startswith("--boot=") for word in ours)
    known = {*registry.names(), *registry.ALIASES, *_COMMANDS}
    if boots and ours[:2] in (["--boot", "--help"], ["--boot", "-h"]):
        return ["boot", "--help"]
    if boots and (arguments[0].startswith("--boot") or arguments[0] not in known):
        return ["boot", *arguments]
    return arguments


def _advice(name: str, known: list[str]) -> str | None:
    """Return what to do instead of giving *name* as the command."""
    if os.path.isfile(name):
        return f"what to make of it comes first, as in: rumpbundle iso {quoted(name)}"
    format, colon, _ = name.partition(":")
    if colon and format in registry.names():
        return f"a subformat is given to build: rumpbundle build APP -f {quoted(name)}"
    return nearest(name, known, "rumpbundle --help", also=registry.MADE_FOR)


def _with_two_dashes(context: click.Context | None, arguments: list[str]) -> str | None:
    """Return the hint for one of *arguments* that is an option but for a dash: ``-cmdline`` is ``-c mdline``."""
    known = {word for each in context.command.params for word in each.opts} if context is not None else set()
    words = (word.partition("=")[0] for word in arguments)
    return next((f"did you mean -{word}?" for word in words if word not in known and f"-{word}" in known), None)


def _elsewhere(error: click.ClickException, context: click.Context | None, arguments: list[str]) -> str | None:
    """Return the hint for a word that *error* is about, and that belongs to another command or behind an option."""
    command = context.info_name if context is not None else ""
    if isinstance(error, click.NoSuchOption):
        first = next((word for word in arguments if word in {*registry.names(), *registry.ALIASES, *_COMMANDS}), "")
        if command == "rumpbundle" and first and error.option_name in _options_of(first):
            return f"options come behind the command: rumpbundle {first} {error.option_name}"
        if file := next((word for word in arguments if word.startswith("-") and os.path.isfile(word)), None):
            return f"write {quoted(os.path.join('.', file))} for the file of that name"
        if command == "build" and error.option_name == "--subformat":
            return "a subformat stands behind its format, as in -f vmdk:stream"
        owners = [name for name in (*registry.names(), *_COMMANDS) if error.option_name in _options_of(name)]
        if command in registry.names() and {"boot", "run"} <= set(owners):
            return f"rumpbundle --boot qemu APP and rumpbundle run IMAGE take {error.option_name}"
        return f"{error.option_name} is an option of {', '.join(owners)}" if 0 < len(owners) < _FEW else None
    if isinstance(error, click.MissingParameter) and "--" in arguments[:-1]:
        return "the words behind -- are for the guest: APP comes before it"
    if isinstance(error, click.BadParameter) and isinstance(
        choice := getattr(error.param, "type", None), click.Choice
    ):
        given = re.match(r"'(.*?)' is not one of ", error.message)
        return given and nearest(given[1], map(str, choice.choices))
    if command in ("boot", "run") and arguments[:1] == [command]:
        from rumpbundle.launcher.registry import NAMES

        backend = next((word for word in arguments[1:2] if word in NAMES), None)
        return backend and f"the hypervisor is given as --boot {backend}"
    return None


def _options_of(name: str) -> set[str]:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    return {word for each in command.params if isinstance(each, click.Option) for word in each.opts}


def _path(context: click.Context | None, arguments: list[str]) -> str:
    """Return the command that *arguments* are for: click gives no *context* where an option lacks its word."""
    if context is not None:
        return context.command_path
    name = next(iter(_with_boot_command(arguments)), "")
    return f"rumpbundle {name}" if name in _COMMANDS or name in registry.names() else "rumpbundle"


def _fail(message: str, hint: str | None, status: int) -> int:
    streams.tell(f"error: {message}")
    if hint:
        streams.tell(f"hint: {hint}")
    return status


def _lower_first(text: str) -> str:
    text = text.replace("\n\t", " ")  # click's lists of choices
    return text[:1].lower() + text[1:].rstrip(".")
