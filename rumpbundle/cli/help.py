"""``rumpbundle help``: a command's help, or a page of the documentation, which the wheel brings along.

Pages and ``check --json`` name pages as ``docs/xen.md`` and ``docs/facts/guests.md#linux``: these are topics, too.
"""

from __future__ import annotations

import re
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from rumpbundle.cli.command import Command
from rumpbundle.cli.streams import say
from rumpbundle.errors import HostError, UsageError, nearest


def _topics(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    group = ctx.find_root().command
    assert isinstance(group, click.Group)
    names = sorted({*_pages(), *group.list_commands(ctx)})
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


@click.command("help", cls=Command, short_help="a page of documentation, or a command's help",
               example="rumpbundle help guests")  # fmt: skip
@click.argument("topic", required=False, shell_complete=_topics)
@click.pass_context
def command(ctx: click.Context, /, topic: str | None) -> None:
    """Print the page TOPIC of the documentation, or the help of the command of that name; without one, all topics."""
    group = ctx.find_root()
    pages = _pages()
    if topic is None:
        say(group.get_help(), styled=True)
        width = max(map(len, pages))
        rows = "\n".join(f"  {name:<{width}}  {_title(path)}" for name, path in pages.items())
        say(f"\nTopics (rumpbundle help TOPIC):\n{rows}")
        return
    assert isinstance(group.command, click.Group)
    given, topic = topic, topic.partition("#")[0].removeprefix("docs/").removesuffix(".md")
    found = group.command.get_command(group, topic)
    if topic in pages:
        say(pages[topic].read_text("utf-8").rstrip("\n"))
    elif found is not None:
        with click.Context(found, info_name=topic, parent=group) as inner:
            say(found.get_help(inner), styled=True)
    else:
        known = [*pages, *group.command.list_commands(group)]
        raise UsageError(f"no such topic: {given}", hint=nearest(topic, known, f"topics: {', '.join(pages)}"))


def _pages() -> dict[str, Path]:
    """Return the pages of the documentation by name: in the package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    for place in (package / "docs", package.parent / "docs"):
        if pages := sorted(place.rglob("*.md"), key=lambda path: (len(path.parts), path)):
            return {path.relative_to(place).with_suffix("").as_posix(): path for path in pages}
    raise HostError("the documentation is not installed", hint="rumpbundle COMMAND --help tells a command's options")


def _title(path: Path) -> str:
    match = re.search(r"^# (.+)$", path.read_text("utf-8"), re.MULTILINE)
    return match[1] if match else ""
