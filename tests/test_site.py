"""The documentation as a site: it builds, every link in it leads somewhere, every page shows something that runs."""

from __future__ import annotations

import os
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from support.kernels import ROOT
from support.tools import output_of

import rumpbundle
from rumpbundle import formats


class Links(HTMLParser):
    """The ids of a page, and where its links lead."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.targets: list[str] = []
        self.feed(page.read_text("utf-8"))

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids.add(found.get("id") or "")
        self.targets += [found[name] for name in ("href", "src") if found.get(name)]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("site")
    env = os.environ | {"PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    output_of(sys.executable, "-m", "mkdocs", "build", "-q", "-d", str(place), cwd=ROOT, env=env)
    return place


def test_every_link_leads_somewhere(site):
    pages = {page: Links(page) for page in site.rglob("*.html") if page.name != "404.html"}
    assert len(pages) > 40
    for page, links in pages.items():
        for target in links.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                assert parts.scheme in ("https", "http"), f"{page.name}: {target}"
                continue
            there = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            assert there.exists(), f"{page.name}: {target}"
            if parts.fragment and there in pages:
                assert unquote(parts.fragment) in pages[there].ids, f"{page.name}: {target}"


def test_the_reference_is_whole(site):
    for name in formats.names():
        assert f"<code>{name}</code>" in (site / "reference" / "formats.html").read_text("utf-8")
    for name in rumpbundle.__all__:
        assert f'<h2 id="{name.lower()}"' in (site / "reference" / "api.html").read_text("utf-8")
    assert "hostname" in (site / "reference" / "configuration.html").read_text("utf-8")
    assert "rumpbundle iso [OPTIONS] APP" in (site / "reference" / "commands.html").read_text("utf-8")


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.stem)
def test_every_page_has_an_example_that_runs(page):
    """``ci`` is run by tests/test_ci_recipe.py, ``page`` by tests/web."""
    text = page.read_text("utf-8")
    assert re.search(r"```(console|python)\n", text) or page.stem in ("ci", "page")
