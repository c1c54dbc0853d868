"""Puts documentation, man pages and the project's URLs into the wheel, and GRUB's boot images if GRUB is installed.

With boot images it writes bootable images on machines that have no GRUB. Without them it still works: they are made
at first use (see rumpbundle/bootloader/bootimages.py).
"""

from __future__ import annotations

import re
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface


class Home(MetadataHookInterface):
    """Hatchling's metadata hook: the project's URLs, and a README whose links lead somewhere on PyPI, too."""

    def update(self, metadata: dict[str, Any]) -> None:
        root = Path(self.root)
        home = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]["rumpbundle"]["home"]
        text = (root / "README.md").read_text("utf-8")
        metadata["urls"] = {}
        if home:
            tag = f"v{metadata['version']}"
            text = re.sub(r"(!\[[^]]*\]\()(?!https:)", rf"\1{home}/raw/{tag}/", text)
            text = re.sub(r"((?<!!)\[[^]]*\]\()(?!https:)", rf"\1{home}/blob/{tag}/", text)
            metadata["urls"] = {
                "Source": home,
                "Documentation": f"{home}/blob/{tag}/docs/index.md",
                "Changelog": f"{home}/blob/{tag}/CHANGELOG.md",
                "Issues": f"{home}/issues",
            }
        metadata["readme"] = {"content-type": "text/markdown", "text": text}


class BootImages(BuildHookInterface):  # type: ignore[type-arg]
    """Hatchling's build hook; runs for wheels, not for editable installs."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel" or version == "editable":
            return
        sys.path.insert(0, self.root)
        self._scratch = tempfile.TemporaryDirectory()
        self._documentation(Path(self._scratch.name) / "man", build_data)
        self._boot_images(Path(self._scratch.name) / "boot", build_data)

    def _documentation(self, scratch: Path, build_data: dict[str, Any]) -> None:
        """Add docs/ for ``rumpbundle help``, and a man page for each command."""
        import click
        from click_man.core import write_man_pages

        from rumpbundle import __version__
        from rumpbundle.cli import cli

        docs = Path(self.root) / "docs"
        for page in sorted(docs.rglob("*.md")):
            build_data["force_include"][str(page)] = f"rumpbundle/docs/{page.relative_to(docs).as_posix()}"
        scratch.mkdir()
        context = click.Context(cli)
        commands = {name: cli.get_command(context, name) for name in cli.list_commands(context)}
        whole = click.Group("rumpbundle", commands=commands, params=cli.params, help=cli.help, epilog=cli.epilog,
                            short_help="turn a bootable kernel into a machine image")  # fmt: skip
        # A given date, so that the wheel is the same every day.
        write_man_pages("rumpbundle", whole, version=__version__, target_dir=str(scratch), date="1980-01-01")
        for page in sorted(scratch.iterdir()):
            build_data["shared_data"][str(page)] = f"share/man/man1/{page.name}"

    def _boot_images(self, directory: Path, build_data: dict[str, Any]) -> None:
        from rumpbundle.bootloader import bootimages
        from rumpbundle.errors import RumpbundleError

        directory.mkdir()
        try:
            images = bootimages.make_boot_images(directory)
        except RumpbundleError as error:
            self.app.display_warning(f"wheel without boot images: {error}")
            return
        self.app.display_info(f"boot images of GRUB {images.version}")
        for path in sorted(directory.iterdir()):
            build_data["force_include"][str(path)] = f"rumpbundle/bootimages/{path.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if hasattr(self, "_scratch"):
            self._scratch.cleanup()
