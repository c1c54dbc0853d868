"""HermitOS: the loader, and the application as its first module."""

from __future__ import annotations

import pytest
from support import synthetic
from support.synthetic import Segment, multiboot1

from rumpbundle import config
from rumpbundle.bundling.writing import ModuleFile, Recipe, plan
from rumpbundle.errors import KernelError, UsageError
from rumpbundle.kernels.unikernel import Family, Unikernel

LOADER = synthetic.elf([Segment(multiboot1().ljust(64, b"\0") + b"hermit-loader v0.5\0")], bits=32)
APPLICATION = synthetic.elf(
    [Segment(b"\x90" * 64), Segment(synthetic.note(b"HERMIT", 0x5A00, b"\x01"), type=synthetic.NOTE)],
    type=synthetic.DYN,
)


@pytest.fixture
def files(tmp_path):
    loader, application = tmp_path / "loader", tmp_path / "app"
    loader.write_bytes(LOADER)
    application.write_bytes(APPLICATION)
    return loader, application


def test_the_application_is_its_first_module(files):
    loader, application = files
    assert Unikernel.read(loader).family is Family.HERMIT
    planned = plan(Recipe(app=loader, modules=(ModuleFile(application),), cmdline="-- words"))
    assert planned.bundle.cmdline == "loader -- words"
    assert [module.name for module in planned.bundle.modules] == ["app"]
    with pytest.raises(UsageError, match="there is none") as caught:
        plan(Recipe(app=loader))
    assert caught.value.hint == "--module APPLICATION"


def test_its_arguments_follow_two_dashes(files):
    """What stands before them its kernel takes for itself, and warns of what it does not know."""
    loader, application = files

    def line(*arguments: str, cmdline: str | None = None) -> str:
        told = config.combined(None, program="app", arguments=arguments)
        recipe = Recipe(app=loader, modules=(ModuleFile(application),), config=told, cmdline=cmdline)
        return plan(recipe).bundle.cmdline

    assert line("hello", "a b") == 'loader -- hello "a b"'
    assert line("hello", cmdline="-ip 10.0.0.2") == "loader -ip 10.0.0.2 -- hello"
    with pytest.raises(UsageError, match="arguments too"):
        line("hello", cmdline="-- words")


def test_an_application_is_told_so(files):
    with pytest.raises(KernelError, match="is a HermitOS application, which HermitOS' loader starts") as caught:
        Unikernel.read(files[1])
    assert "--module" in caught.value.hint
