"""A sample of what tests/mutation/run.py does in full."""

from __future__ import annotations

import pytest

from mutation import run as mutation


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    directory = tmp_path_factory.mktemp("images")
    mutation.build(directory)
    return directory


@pytest.mark.parametrize("format", mutation.IMAGES)
def test_every_flip_is_found_or_means_nothing(images, format):
    image = images / mutation.IMAGES[format]
    outcome = mutation.attack(format, image, 25, 2026, 0, 1)
    assert outcome.found > outcome.metadata // 2
    assert not outcome.missed


@pytest.mark.parametrize("format", [each for each in mutation.IMAGES if each not in ("iso", "raw", *mutation.SLOW)])
def test_no_number_of_a_container_is_taken_at_its_word(images, format):
    outcome = mutation.attack(
        format, images / mutation.IMAGES[format], 40, 2026, 0, 1, container=True, change=mutation.huge
    )
    assert outcome.found > outcome.metadata // 2
    assert not outcome.missed
