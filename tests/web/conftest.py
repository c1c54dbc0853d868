"""The page in a browser, for the tests of this directory."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.browser import Page, browser, built_page, served


@pytest.fixture(scope="module")
def directory() -> Path:
    return built_page()


@pytest.fixture(scope="module")
def session(directory: Path) -> Iterator[Page]:
    with served(directory) as address, browser(address) as page:
        page.open()
        yield page


@pytest.fixture
def page(session: Page) -> Iterator[Page]:
    """The page as it is after a start; what it asked the network for is checked at the end."""
    yield session
    foreign = [url for url in session.requests() if not re.match(r"(blob:|data:|about:|chrome:)", url)]
    assert [url for url in foreign if not url.startswith(session.address)] == []
    session.open()


@pytest.fixture(scope="module")
def command_line(directory: Path, tmp_path_factory: pytest.TempPathFactory):
    """A function that runs the command line of the very wheel the page ships."""
    place = tmp_path_factory.mktemp("wheel")
    with zipfile.ZipFile(directory / "wheels" / "rumpbundle.whl") as wheel:
        wheel.extractall(place)

    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(place), "HOME": str(place)}

    def run(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-P", "-m", "rumpbundle", *map(str, words)]
        return subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, timeout=300)

    run.env = env
    return run
