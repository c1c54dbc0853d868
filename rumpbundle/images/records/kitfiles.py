"""What those who write a kit and those who find one both know of it: its files' names, and the block EBS has."""

from __future__ import annotations

import os

XL_CFG = "xl.cfg"
XEN_DISK = "disk.raw"
XEN_CONFIG = "cfg.json"
XEN_MANIFEST = "rumpbundle.json"
"""What a kit without a disk of ours is made from; else the disk tells."""
EC2_DISK = "volume.raw"
EC2_MANIFEST = "manifest.json"
EC2_BLOCK = 512 << 10
"""The only block size EBS has; what a service reports is not trusted (moto says 512 bytes)."""
GCE_DISK = "disk.raw"


def is_xen(path: str | os.PathLike[str]) -> bool:
    """Return whether *path* is a Xen kit: a directory with an xl.cfg."""
    return os.path.isfile(os.path.join(path, XL_CFG))
