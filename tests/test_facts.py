"""Every statement that names its source names one that a reader can open.

A citation is ``docs/facts/PAGE.md#section``; the section's anchor is made from its heading as GitHub makes it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from click.testing import CliRunner
from support import synthetic

from rumpbundle import knowledge
from rumpbundle.cli import cli

ROOT = Path(__file__).parents[1]
HERE = Path(__file__)
PLACES = ("rumpbundle", "tests", "docs", "bench", "scripts", "examples", "golden", ".ci")
SUFFIXES = {".py", ".md", ".toml", ".sh", ".txt", ".json", ".c", ".S", ".yml", ""}

CITATION = re.compile(r"\bdocs/facts(?:/[a-z0-9_-]+\.md(?:#[a-z0-9-]+)?)?")
PATH = re.compile(
    r"(?<![\w/.-])(?:docs|tests|scripts|bench|examples|rumpbundle)/[\w./-]+\.(?:md|py|toml|sh|json|svg|txt)\b"
)
LINK = re.compile(r"\]\((?!https?:)([\w./-]*(?:#[a-z0-9-]+)?)\)")
NOT_OURS = {"docs/interop/qcow2.txt": "QEMU's", "rumpbundle/bootimages/facts.json": "made with the wheel"}
PLACEHOLDERS = ("NAME", "PAGE")

# What else a row may name: books and sources that anybody can get.
PUBLIC = (
    "rumprun platform/",
    "Solo5 bindings/",
    "Linux arch/",
    "Xen arch/",
    "VirtualBox manual",
    "VirtualBox source",
    "Microsoft: ",
    "Microsoft, ",
    "xl.cfg(5)",
)


def texts() -> Iterator[tuple[Path, str]]:
    """Yield the repository's own text files, but for this one, which spells out what is forbidden."""
    folders = (path for place in PLACES for path in (ROOT / place).rglob("*"))
    for path in sorted((*ROOT.glob("[!.]*"), *folders)):
        skipped = {"__pycache__", "corpus"} & set(path.parts)
        if path.suffix in SUFFIXES and path.is_file() and path != HERE and not skipped:
            yield path, path.read_text("utf-8", "replace")


TEXTS = list(texts())


@cache
def anchors(page: Path) -> list[str]:
    """Return the anchors of the page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]


def broken(citation: str) -> str | None:
    """Return what is wrong with a citation of docs/facts."""
    page, mark, anchor = citation.partition("#")
    if page == "docs/facts":
        return None
    if not (ROOT / page).is_file():
        return f"{page} does not exist"
    if not mark:
        return f"{page} is named without a section"
    return None if anchor in anchors(ROOT / page) else f"{page} has no section #{anchor}"


def test_the_repository_is_read():
    names = {str(path.relative_to(ROOT)) for path, _ in TEXTS}
    assert {"README.md", "Makefile", "rumpbundle/hybrid.py", "rumpbundle/knowledge/guests.toml"} <= names


def test_every_citation_leads_to_a_section():
    cited = [(path, citation) for path, text in TEXTS for citation in CITATION.findall(text)]
    wrong = [f"{path.relative_to(ROOT)}: {broken(citation)}" for path, citation in cited if broken(citation)]
    assert not wrong
    assert {citation.partition("#")[0] for _, citation in cited} > {
        f"docs/facts/{page}.md" for page in ("guests", "formats", "xen", "peers")
    }


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/facts/*.md")), ids=lambda page: page.stem)
def test_no_two_sections_have_one_name(page):
    assert sorted(anchors(page)) == sorted(set(anchors(page)))


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/**/*.md")), ids=lambda page: page.stem)
def test_every_link_leads_to_a_section(page):
    for link in LINK.findall(page.read_text("utf-8")):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_nothing_outside_the_repository_is_named():
    forbidden = re.compile(r"(?<!docs/)\bfacts/|shared design|\b(?:design|style)\.md|\bseed\.txt|/work/|\bcases/")
    for path, text in TEXTS:
        if path.suffix == ".md":
            text = LINK.sub("", text)
        assert not forbidden.search(text), f"{path.relative_to(ROOT)}: {forbidden.search(text)}"


def test_every_file_that_is_named_exists():
    for path, text in TEXTS:
        for name in PATH.findall(text):
            if name not in NOT_OURS and not any(word in name for word in PLACEHOLDERS):
                assert (ROOT / name).exists(), f"{path.relative_to(ROOT)} names {name}"


def sources() -> Iterator[tuple[str, str]]:
    """Yield every row of the tables and its source."""
    for platform in knowledge.platforms():
        for offers in platform.offers.values():
            yield from ((f"{platform.name} {offer.name}", offer.source) for offer in offers)
    for family, target in knowledge.guests():
        guest = knowledge.guest(family, target)
        for ability in (guest.disk, guest.nic, guest.console, guest.clock):
            yield f"{family} {target}", ability.source
        yield f"{family} {target}", guest.source


def wrong_source(source: str) -> str | None:
    """Return what is wrong with a source: neither a citation that leads somewhere nor a public document."""
    for part in re.split(r"; |, (?=xl)", source):
        if part.startswith("docs/facts/"):
            if CITATION.fullmatch(part) is None or broken(part):
                return broken(part) or part
        elif not part.startswith(PUBLIC) and not re.fullmatch(r"xl-[a-z]+-configuration\(5\)", part):
            return f"{part!r} is no public source this test knows"
    return None


def test_every_row_of_the_tables_has_a_source_to_open():
    rows = list(sources())
    assert len(rows) > 100
    assert not [f"{row}: {wrong_source(source)}" for row, source in rows if wrong_source(source)]


@pytest.mark.parametrize("kernel", [synthetic.multiboot_elf(), synthetic.rumprun(), synthetic.bzimage()])
def test_check_names_sources_to_open(kernel, tmp_path):
    path = tmp_path / "app.bin"
    path.write_bytes(kernel)
    for target in (platform.name for platform in knowledge.platforms()):
        result = CliRunner().invoke(cli, ["check", str(path), "--target", target, "--json"])
        answers = json.loads(result.stdout)["answers"].values()
        named = [source for answer in answers for source in answer["sources"]]
        assert named
        assert not [wrong_source(source) for source in named if wrong_source(source)]
