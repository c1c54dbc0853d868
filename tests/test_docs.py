"""The documentation names what there is, and its examples work."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import click
import pytest

import rumpbundle
from rumpbundle import formats
from rumpbundle.bundling.recipe import RecipeFields
from rumpbundle.cli import cli
from rumpbundle.dev_launch import BootFields

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def commands() -> list[tuple[str, click.Command]]:
    context = click.Context(cli)
    found = []
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        found.append((name, command))
    return found


@pytest.mark.parametrize(("name", "command"), commands(), ids=lambda value: value if isinstance(value, str) else "")
def test_every_command_and_option_is_documented(name, command):
    text = (ROOT / "docs" / "cli.md").read_text("utf-8")
    assert command.hidden or f"`{name}`" in text or f"rumpbundle {name}" in text
    assert command.help
    assert command.short_help or len(command.help.split(".")[0]) < 80
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            assert parameter.help, f"{name} {parameter.opts}"
            longest = max(parameter.opts, key=len)
            assert re.search(rf"`[^`]*{re.escape(longest)}\b", text), f"{name} {longest} is not in docs/cli.md"


def test_every_command_that_bundles_has_the_options_that_are_said_to_be_everyones():
    page = (ROOT / "docs" / "cli.md").read_text("utf-8").partition("## Options of every command that bundles")[2]
    rows = re.findall(r"^\| (`-.*?) \| ", page.partition("\n## ")[0], re.MULTILINE)
    told = {option for row in rows for option in re.findall(r"(?<![\w-])--[a-z0-9-]+", row)} - {"--subformat"}
    kept = {"--output", "--force", "--no-sync", "--json", "--sbom", "--sign"}
    for name, command in commands():
        if name in formats.names() or name in ("build", "boot"):
            lacks = told - {word for each in command.params for word in each.opts}
            assert lacks == (kept if name == "boot" else set()), name


SENTENCES = sorted({*PAGES, *ROOT.glob("examples/*/*.md")} - {ROOT / "CHANGELOG.md"})  # which tells of the past, too


@pytest.mark.parametrize("page", SENTENCES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_in_a_sentence_has_the_options_it_is_shown_with(page):
    known = {name: {word for each in command.params for word in each.opts} for name, command in commands()}
    general = {"--help", "-h", "--kernel"}
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    for shown in re.findall(r"`rumpbundle ([^`]+)`", text):
        first, *words = re.split(r" -- | \| ", " ".join(shown.split()))[0].split()
        name = "boot" if first == "--boot" else formats.ALIASES.get(first, first)
        if name in ("FORMAT", "COMMAND", "app.bin"):  # forms, and the mistake that troubleshooting tells of
            continue
        assert name in known, shown
        for word in words:
            if option := re.match(r"\[?(--?[a-z][a-z-]*)", word):
                assert option[1] in known[name] | general, shown


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_page_that_is_named_exists(page):
    text = page.read_text("utf-8")
    for name in re.findall(r"\bdocs/[a-z0-9_.-]+\.(?:md|json)\b", text):
        assert (ROOT / name).exists(), f"{page.name} names {name}"
    for name in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (page.parent / name).exists(), f"{page.name} links to {name}"


def test_the_readme_names_every_format():
    text = (ROOT / "README.md").read_text("utf-8")
    for name in formats.names():
        assert f"`{name}`" in text, name


def test_the_api_page_names_every_public_name():
    text = (ROOT / "docs" / "api.md").read_text("utf-8")
    for name in rumpbundle.__all__:
        assert re.search(rf"\b{name}\b", text), name


def test_every_keyword_is_documented():
    text = (ROOT / "docs" / "api.md").read_text("utf-8")
    assert [name for name in RecipeFields.__annotations__ if f"`{name}`" not in text] == []
    told = (ROOT / "docs" / "launch.md").read_text("utf-8").partition("`launch()` takes")[2].partition("\n\n")[0]
    words = set(re.findall(r"`(\w+)`", told)) - {"Recipe", "Guest"}
    taken = {*inspect.signature(rumpbundle.run).parameters, *BootFields.__annotations__}
    assert words == taken - {"image", "options", "report", "more"}


def test_the_changelog_has_an_unreleased_head():
    assert "\n## Unreleased\n" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_choices_are_written_in_small_letters():
    for name, command in commands():
        for parameter in command.params:
            if isinstance(parameter.type, click.Choice):
                choices = [parameter.type.normalize_choice(choice, None) for choice in parameter.type.choices]
                assert choices == [choice.lower() for choice in choices], f"{name} {parameter.opts}"
