"""rumpbundle: a bootable kernel, its data and configuration, into a machine image for any hypervisor or cloud.

The names below are the public API; each is loaded when first used, so ``import rumpbundle`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rumpbundle.api import Artifact, ModuleFile, Plan, Recipe, Result, bundle, plan, write
    from rumpbundle.dev_launch import launch, run
    from rumpbundle.errors import RumpbundleError
    from rumpbundle.kernels.unikernel import Unikernel
    from rumpbundle.launcher.session import Guest

__version__ = "0.1.0"

_HOME = {
    "Artifact": "api",
    "Guest": "launcher.session",
    "ModuleFile": "api",
    "Plan": "api",
    "Recipe": "api",
    "Result": "api",
    "RumpbundleError": "errors",
    "Unikernel": "kernels.unikernel",
    "bundle": "api",
    "launch": "dev_launch",
    "plan": "api",
    "run": "dev_launch",
    "write": "api",
}

__all__ = [
    "Artifact",
    "Guest",
    "ModuleFile",
    "Plan",
    "Recipe",
    "Result",
    "RumpbundleError",
    "Unikernel",
    "bundle",
    "launch",
    "plan",
    "run",
    "write",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"rumpbundle.{_HOME[name]}"), name)
    raise AttributeError(f"module 'rumpbundle' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
