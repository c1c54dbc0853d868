from __future__ import annotations

import pytest

from rumpbundle.units import shown_size


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (1 << 20, "1 MiB"),
        ((1 << 20) + 1, "1.0 MiB"),
        (5 << 30, "5 GiB"),
        (3 << 39, "1.5 TiB"),
    ],
)
def test_a_size_is_shown_in_the_unit_it_fills(count, shown):
    assert shown_size(count) == shown
