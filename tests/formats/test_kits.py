"""What all kits have in common."""

from __future__ import annotations

import pytest
from support import kernels

import rumpbundle
from rumpbundle import formats
from rumpbundle.errors import UsageError
from rumpbundle.formats import OneFile
from rumpbundle.formats.azure import AzureOptions
from rumpbundle.formats.gce import GceOptions

KITS = [each.name for each in formats.formats() if not isinstance(each.product, OneFile)]


def bundled(tmp_path, format, **more):
    found = formats.find(format)
    output = tmp_path / f"app{found.suffix.rstrip('/')}"
    result = rumpbundle.bundle(kernels.build("multiboot"), format, output=output, force=True, **more)
    files = [*found.files(output)[1:]] or [*output.iterdir()]
    return result, "".join(path.read_text() for path in files if path.suffix in (".json", ".cfg"))


@pytest.mark.parametrize("format", KITS)
def test_the_request_names_the_bundle_of_its_disk(tmp_path, format):
    """Files of two kits that were mixed up, or torn apart by a power cut, can be told by it."""
    result, request = bundled(tmp_path, format)
    other, changed = bundled(tmp_path, format, cmdline="other")
    assert result.digest != other.digest
    assert result.digest in request
    assert other.digest in changed


def test_also_where_the_user_describes_the_image(tmp_path):
    result, request = bundled(tmp_path, "gce", options=GceOptions(description="mine"))
    assert result.digest[:63] in request


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("azure", AzureOptions(tag=("rumpbundle=x",))),
        ("gce", GceOptions(tag=("rumpbundle=x",), description="mine")),
    ],
)
def test_its_place_is_taken(tmp_path, format, options):
    with pytest.raises(UsageError, match="bundle's digest"):
        bundled(tmp_path, format, options=options)
