"""The documentation as a site: it builds, every link in it leads somewhere, every page shows something that runs."""

from __future__ import annotations

import os
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from support.browser import browser, built_page, served
from support.kernels import ROOT
from support.pages import consoles, python
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
    page = built_page()
    env = os.environ | {"PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1", "PAGE": str(page)}
    output_of(sys.executable, "-m", "mkdocs", "build", "-q", "-d", str(place), cwd=ROOT, env=env)
    return place


def check_recipe(fragment: str) -> None:
    """A link that opens the page for browsers fills in what there is to fill in."""
    recipe = parse_qs(fragment, strict_parsing=True)
    assert set(recipe) <= {"cmdline", "config", "firmware", "formats", "mount", "name", "size"}
    for name in recipe["formats"][0].split(","):
        name, _, variant = name.partition(":")
        assert not variant or variant in formats.find(name).variants


def test_every_link_leads_somewhere(site):
    pages = {page: Links(page) for page in site.rglob("*.html") if page.name != "404.html"}
    assert len(pages) > 40
    assert site / "index.html" in pages
    for page, links in pages.items():
        for target in links.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                assert parts.scheme in ("https", "http"), f"{page.name}: {target}"
                continue
            there = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            assert there.exists(), f"{page.name}: {target}"
            if there == site / "page" / "index.html" != page:
                check_recipe(parts.fragment)
            elif parts.fragment and there in pages:
                assert unquote(parts.fragment) in pages[there].ids, f"{page.name}: {target}"


def test_the_reference_is_whole(site):
    for name in formats.names():
        assert f"<code>{name}</code>" in (site / "reference" / "formats.html").read_text("utf-8")
    for name in rumpbundle.__all__:
        assert f'<h2 id="{name.lower()}"' in (site / "reference" / "api.html").read_text("utf-8")
    assert "hostname" in (site / "reference" / "configuration.html").read_text("utf-8")
    assert "rumpbundle iso [OPTIONS] APP" in (site / "reference" / "commands.html").read_text("utf-8")


def test_the_front_page_opens_the_page_for_browsers(site):
    links = Links(site / "index.html").targets
    assert [target for target in links if target.startswith("page/index.html#")]


@pytest.mark.browser
def test_a_link_opens_it_with_the_recipe(site):
    with served(site) as address, browser(f"{address}multiboot.html") as page:
        (link,) = [each for each in Links(site / "multiboot.html").targets if each.startswith("page/index.html#")]
        page.driver.get(page.address)
        page.driver.find_element("css selector", f"a[href='{link}']").click()
        page.wait(lambda: page.js("return document.body.dataset.ready") == "true", "the page is not ready")
        assert page.js("return document.getElementById('cmdline').value") == "how are you"
        assert page.js("return document.getElementById('format-iso').checked")


def test_every_page_has_an_example_that_runs(site):
    """The generated ones, too; ``ci`` is run by tests/test_ci_recipe.py, ``page`` by tests/web."""
    run = {*consoles(), *(name.rpartition("-")[0] for name in python()), "ci", "page"}
    pages = {str(path.relative_to(site).with_suffix("")) for path in site.rglob("*.html")}
    shown = {name for name in pages if name != "404" and not name.startswith("page/")}
    assert shown - run == set()


def test_every_choice_of_a_key_can_be_seen(site):
    text = (site / "reference" / "configuration.html").read_text("utf-8")
    assert '<td><code>""</code>, <code>"&amp;"</code>, <code>"|"</code></td>' in text
