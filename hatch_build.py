"""Puts GRUB's boot images into the wheel if GRUB is installed where the wheel is built.

Such a wheel writes bootable images on machines that have no GRUB. Without it the wheel still works: the images are
made at first use (see rumpbundle/grub.py).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class BootImages(BuildHookInterface):  # type: ignore[type-arg]
    """Hatchling's build hook; runs for wheels, not for editable installs."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel" or version == "editable":
            return
        sys.path.insert(0, self.root)
        from rumpbundle import grub
        from rumpbundle.errors import RumpbundleError

        self._scratch = tempfile.TemporaryDirectory()
        directory = Path(self._scratch.name)
        try:
            images = grub.make_boot_images(directory)
        except RumpbundleError as error:
            self.app.display_warning(f"wheel without boot images: {error}")
            return
        self.app.display_info(f"boot images of GRUB {images.version}")
        for path in sorted(directory.iterdir()):
            build_data["force_include"][str(path)] = f"rumpbundle/bootimages/{path.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if hasattr(self, "_scratch"):
            self._scratch.cleanup()
