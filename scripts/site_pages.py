"""The site's reference, made from the code when the site is built (mkdocs.yml names this as a hook)."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import ConfigurationError
from mkdocs.structure.files import File, Files

import rumpbundle
from rumpbundle import formats
from rumpbundle.cli import cli

ROOT = Path(__file__).parents[1]


def commands() -> Iterator[str]:
    """Yield the page of all commands: what ``--help`` says of each."""
    yield f"# Commands\n\n{_example('rumpbundle iso app.bin', 'app.iso')}\n"
    context = click.Context(cli, info_name="rumpbundle")
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        if command is not None and not command.hidden:
            with click.Context(command, info_name=name, parent=context, max_content_width=90) as inner:
                yield f"## {name}\n\n```text\n{command.get_help(inner)}\n```\n"


def configuration() -> Iterator[str]:
    """Yield the page of the configuration's keys, from its JSON Schema."""
    schema = json.loads((ROOT / "docs" / "config.schema.json").read_text("utf-8"))
    yield "# Keys of the configuration\n\nWhat they mean is told in [Configuration](../config.md).\n"
    yield f"The schema, for an editor:\n\n{_example('rumpbundle config --schema', '{', '…')}\n"
    for name, part in [("The file", schema), *schema.get("$defs", {}).items()]:
        if "properties" not in part:
            continue
        yield f"\n## {name}\n\n| key | type |\n|---|---|"
        for key, value in part["properties"].items():
            yield f"| `{key}` | {_type(value)} |"


def _example(command: str, *shown: str) -> str:
    """Return a console block; like those of the other pages it is run by the tests."""
    return "\n".join(["```console", f"$ {command}", *shown, "```"])


def _type(value: dict[str, Any]) -> str:
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "enum" in value or "const" in value:
        # As JSON has them: an empty text would be no code to Markdown.
        return ", ".join(f"`{json.dumps(each)}`" for each in value.get("enum", [value.get("const")]))
    if "anyOf" in value:
        return " or ".join(map(_type, value["anyOf"]))
    if value.get("type") == "array":
        return f"list of {_type(value.get('items', {}))}"
    if value.get("type") == "object" and isinstance(value.get("additionalProperties"), dict):
        return f"object of {_type(value['additionalProperties'])}"
    return str(value.get("type", "anything"))


def all_formats() -> Iterator[str]:
    """Yield the page of all formats, from their registry."""
    yield f"# All formats\n\n{_example('rumpbundle formats', '…')}\n"
    yield "| format | for | file | subformats |\n|---|---|---|---|"
    for each in formats.formats():
        yield f"| `{each.name}` | {each.summary} | `app{each.tail}` | {', '.join(each.variants) or '—'} |"


def api() -> Iterator[str]:
    """Yield the page of the public names, from their signatures and docstrings."""
    yield "# Names of the Python API\n\nHow they are used is told in [From Python](../api.md).\n"
    yield '```python\nrumpbundle.bundle("app.bin", format="raw")\n```\n'
    for name in rumpbundle.__all__:
        value = getattr(rumpbundle, name)
        documentation = inspect.getdoc(value) or ""
        signature = ""
        if inspect.isfunction(value):
            signature = str(inspect.signature(value))
        yield f"## {name}\n\n```text\n{name}{signature}\n\n{documentation}\n```\n"


PAGES = {"commands": commands, "configuration": configuration, "formats": all_formats, "api": api}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages that mkdocs.yml does not name under "More", so that a new page is never lost."""
    named = json.dumps(config.nav)
    more = sorted(path.name for path in (ROOT / "docs").glob("*.md") if f'"{path.name}"' not in named)
    facts = [path.relative_to(ROOT / "docs").as_posix() for path in sorted((ROOT / "docs" / "facts").glob("*.md"))]
    assert config.nav is not None
    config.nav += [
        {"More": more},
        {"Reference": [f"reference/{name}.md" for name in PAGES]},
        {"Facts": facts},
    ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, and the page for browsers."""
    for name, make in PAGES.items():
        files.append(File.generated(config, f"reference/{name}.md", content="\n".join(make())))
    place = ROOT / config.extra["page"]
    if not (place / "index.html").exists():
        raise ConfigurationError(f"{place}: the page for browsers is not there; make page builds it")
    for path in sorted(place.rglob("*")):
        if path.is_file():
            name = f"page/{path.relative_to(place).as_posix()}"
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Let links with a recipe open the page for browsers; in the repository they lead to what is said of it."""
    return re.sub(r"\]\(page\.md#(?=\w+=)", "](page/index.html#", markdown)
