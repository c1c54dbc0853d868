"""rumpbundle: a bootable kernel, its data and configuration, into a machine image for any hypervisor or cloud.

The names below are the public API; each is loaded when first used, so ``import rumpbundle`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rumpbundle.api import Artifact, ModuleFile, Plan, Recipe, Result, bundle, plan, write
    from rumpbundle.errors import RumpbundleError
    from rumpbundle.unikernel import Unikernel

__version__ = "0.1.0"

_HOME = {
    "Artifact": "api",
    "ModuleFile": "api",
    "Plan": "api",
    "Recipe": "api",
    "Result": "api",
    "RumpbundleError": "errors",
    "Unikernel": "unikernel",
    "bundle": "api",
    "plan": "api",
    "write": "api",
}

__all__ = [
    "Artifact",
    "ModuleFile",
    "Plan",
    "Recipe",
    "Result",
    "RumpbundleError",
    "Unikernel",
    "bundle",
    "plan",
    "write",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"rumpbundle.{_HOME[name]}"), name)
    raise AttributeError(f"module 'rumpbundle' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
