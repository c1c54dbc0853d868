"""The suite's own options."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

from rumpbundle.bootloader.bootimages import boot_images
from rumpbundle.errors import MissingToolError

# No deadline: a busy machine is no bug. "long" is for the hunt: pytest --hypothesis-profile=long tests/test_config.py
settings.register_profile("suite", deadline=None)
settings.register_profile("long", max_examples=100_000, deadline=None)
settings.load_profile("suite")


CACHE = Path(__file__).parents[1] / ".cache" / "xdg"
"""What the suite uses in the place of the developer's own ~/.cache."""


ENDING = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGHUP: signal.SIG_DFL,
    signal.SIGQUIT: signal.SIG_DFL,
    signal.SIGTERM: signal.SIG_DFL,
}
"""What ends a program, and what Python does about it."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write golden/*.txt anew instead of comparing")


def pytest_configure(config: pytest.Config) -> None:
    """Let programs be interrupted, keep out of the user's cache, and make GRUB's boot images if there are none.

    xdist's workers and all programs inherit the environment, and find the images that the first process made.
    """
    os.environ["XDG_CACHE_HOME"] = str(CACHE)
    # Whoever starts the suite in the background (nohup, a CI runner) has some signals ignored, and that is inherited:
    # the programs that tests signal would never hear of them.
    for number, handler in ENDING.items():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
    with contextlib.suppress(MissingToolError):
        boot_images()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes minutes: at the end it would run alone, with a processor idle."""
    items.sort(key=lambda item: item.path.name != "test_xen.py")


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let programs run as they are under ``make coverage``, too: what it adds takes memory and a place to write."""
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
