"""The suite's own options."""

from __future__ import annotations

import contextlib
import signal

import pytest
from hypothesis import settings

from rumpbundle import grub
from rumpbundle.errors import MissingToolError

# No deadline: a busy machine is no bug. "long" is for the hunt: pytest --hypothesis-profile=long tests/test_config.py
settings.register_profile("suite", deadline=None)
settings.register_profile("long", max_examples=100_000, deadline=None)
settings.load_profile("suite")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write golden/*.txt anew instead of comparing")


def pytest_configure(config: pytest.Config) -> None:
    """Let programs be interrupted, and make GRUB's boot images, should this be their first use on this machine."""
    # Whoever starts the suite in the background (nohup, a CI runner) has SIGINT ignored, and ignoring is inherited:
    # the programs that tests interrupt would never hear of it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with contextlib.suppress(MissingToolError):
        grub.boot_images()
