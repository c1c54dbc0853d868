"""rumpbundle: a bootable kernel, its data and configuration, into a machine image for any hypervisor or cloud."""

from __future__ import annotations

__version__ = "0.1.0"
