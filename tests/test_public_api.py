"""The names a program may import, and that using the library costs no more than it must."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support import kernels

import rumpbundle
from rumpbundle.errors import KernelError, UsageError


def test_the_exported_names_are_these():
    assert sorted(rumpbundle.__all__) == [
        "Artifact", "AzureOptions", "Difference", "Ec2Options", "GceOptions", "Guest", "ModuleFile", "OvaOptions",
        "Plan", "Recipe", "Result", "RumpbundleError", "Unikernel", "Verification", "XenOptions", "build", "bundle",
        "cat", "check", "diff", "inspect", "launch", "ls", "plan", "run", "verify", "write",
    ]  # fmt: skip
    for name in rumpbundle.__all__:
        assert getattr(rumpbundle, name).__doc__, name
    assert set(rumpbundle.__all__) <= set(dir(rumpbundle))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        rumpbundle.nonsense  # noqa: B018


def test_the_type_marker_is_shipped():
    import importlib.resources

    assert importlib.resources.files("rumpbundle").joinpath("py.typed").is_file()


@pytest.mark.parametrize("module", ["msgspec", "rich", "pycdlib", "deflate", "boto3", "botocore"])
def test_a_bare_import_loads_no_heavy_library(module):
    code = f"import rumpbundle, rumpbundle.bundling.writing, rumpbundle.cli, sys; sys.exit({module!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_bundle_does_what_the_command_does(tmp_path):
    app = kernels.build("multiboot")
    result = rumpbundle.bundle(app, "iso", output=tmp_path / "a.iso", cmdline="hello", name="box")
    assert result.paths == (tmp_path / "a.iso",)
    assert len(result.digest) == 64
    assert (tmp_path / "a.iso").read_bytes()[0x8001:0x8006] == b"CD001"
    with pytest.raises(UsageError, match=r"a\.iso: already exists"):
        rumpbundle.bundle(app, "iso", output=tmp_path / "a.iso")
    again = rumpbundle.bundle(app, "iso", output=tmp_path / "a.iso", cmdline="hello", name="box", force=True)
    assert again.digest == result.digest


def test_errors_are_exceptions_of_one_tree(tmp_path):
    (tmp_path / "text").write_text("hello\n")
    with pytest.raises(KernelError):
        rumpbundle.bundle(tmp_path / "text", "iso", output=tmp_path / "x.iso")
    with pytest.raises(UsageError, match="there is no option 'nonsense'"):
        rumpbundle.bundle(tmp_path / "text", nonsense=1)
    with pytest.raises(UsageError, match="no such format: vmkd") as caught:
        rumpbundle.bundle(tmp_path / "text", "vmkd")
    assert caught.value.hint == "did you mean vmdk?"
    assert isinstance(caught.value, rumpbundle.RumpbundleError)
    assert not list(tmp_path.glob("*.iso"))
