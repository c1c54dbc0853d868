"""``rumpbundle help``: a command's help, or a page of the documentation, which the wheel brings along."""

from __future__ import annotations

import re
from pathlib import Path

import click

from rumpbundle.cli.command import Command
from rumpbundle.cli.streams import say
from rumpbundle.errors import HostError, UsageError, nearest


@click.command("help", cls=Command, short_help="a page of documentation, or a command's help",
               example="rumpbundle help guests")  # fmt: skip
@click.argument("topic", required=False)
@click.pass_context
def command(ctx: click.Context, /, topic: str | None) -> None:
    """Print the page TOPIC of the documentation, or the help of the command of that name; without one, all topics."""
    group = ctx.find_root()
    pages = _pages()
    if topic is None:
        say(group.get_help(), styled=True)
        rows = "\n".join(f"  {name:<12} {_title(path)}" for name, path in pages.items())
        say(f"\nTopics (rumpbundle help TOPIC):\n{rows}")
        return
    assert isinstance(group.command, click.Group)
    found = group.command.get_command(group, topic)
    if topic in pages:
        say(pages[topic].read_text("utf-8").rstrip("\n"))
    elif found is not None:
        with click.Context(found, info_name=topic, parent=group) as inner:
            say(found.get_help(inner), styled=True)
    else:
        known = [*pages, *group.command.list_commands(group)]
        raise UsageError(f"no such topic: {topic}", hint=nearest(topic, known, f"topics: {', '.join(pages)}"))


def _pages() -> dict[str, Path]:
    """Return the pages of the documentation by name: in the package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    for place in (package / "docs", package.parent / "docs"):
        if pages := sorted(place.glob("*.md")):
            return {path.stem: path for path in pages}
    raise HostError("the documentation is not installed", hint="rumpbundle COMMAND --help tells a command's options")


def _title(path: Path) -> str:
    match = re.search(r"^# (.+)$", path.read_text("utf-8"), re.MULTILINE)
    return match[1] if match else ""
