"""rumpbundle: a bootable kernel, its data and configuration, into a machine image for any hypervisor or cloud.

The names below are the public API; each is loaded when first used, so ``import rumpbundle`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rumpbundle.bundling.batch import build
    from rumpbundle.bundling.recipe import ModuleFile, Recipe
    from rumpbundle.bundling.writing import Artifact, Plan, Result, bundle, plan, write
    from rumpbundle.dev_launch import launch, run
    from rumpbundle.errors import RumpbundleError
    from rumpbundle.finished.diff import Difference, diff
    from rumpbundle.finished.verify import Verification, verify
    from rumpbundle.formats._ec2_requests import Ec2Options
    from rumpbundle.formats.azure import AzureOptions
    from rumpbundle.formats.gce import GceOptions
    from rumpbundle.formats.ova import OvaOptions
    from rumpbundle.formats.xen import XenOptions
    from rumpbundle.images.report import cat, check, inspect, ls
    from rumpbundle.kernels.unikernel import Unikernel
    from rumpbundle.launcher.session import Guest

__version__ = "0.1.0"

_HOME = {
    "Artifact": "bundling.writing",
    "AzureOptions": "formats.azure",
    "Difference": "finished.diff",
    "Ec2Options": "formats._ec2_requests",
    "GceOptions": "formats.gce",
    "Guest": "launcher.session",
    "ModuleFile": "bundling.recipe",
    "OvaOptions": "formats.ova",
    "Plan": "bundling.writing",
    "Recipe": "bundling.recipe",
    "Result": "bundling.writing",
    "RumpbundleError": "errors",
    "Unikernel": "kernels.unikernel",
    "Verification": "finished.verify",
    "XenOptions": "formats.xen",
    "build": "bundling.batch",
    "bundle": "bundling.writing",
    "cat": "images.report",
    "check": "images.report",
    "diff": "finished.diff",
    "inspect": "images.report",
    "launch": "dev_launch",
    "ls": "images.report",
    "plan": "bundling.writing",
    "run": "dev_launch",
    "verify": "finished.verify",
    "write": "bundling.writing",
}

__all__ = [
    "Artifact",
    "AzureOptions",
    "Difference",
    "Ec2Options",
    "GceOptions",
    "Guest",
    "ModuleFile",
    "OvaOptions",
    "Plan",
    "Recipe",
    "Result",
    "RumpbundleError",
    "Unikernel",
    "Verification",
    "XenOptions",
    "build",
    "bundle",
    "cat",
    "check",
    "diff",
    "inspect",
    "launch",
    "ls",
    "plan",
    "run",
    "verify",
    "write",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"rumpbundle.{_HOME[name]}"), name)
    raise AttributeError(f"module 'rumpbundle' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
