"""A program for the reproducibility test: bundles one kernel with everything a bundle can hold, as every format.

usage: python everything.py INPUTS OUTPUTS     (INPUTS: app.bin, data/, volume/, cfg.json)
"""

from __future__ import annotations

import sys
from pathlib import Path

import rumpbundle
from rumpbundle import config, formats, guests
from rumpbundle.disk import tree


def main(inputs: Path, outputs: Path) -> None:
    settings = inputs / "cfg.json"
    recipe = rumpbundle.Recipe(
        app=inputs / "app.bin",
        config=config.parse(settings.read_bytes(), str(settings)),
        data=(guests.Data(tree.scan(inputs / "data"), "/data"),),
        volumes=(guests.Writable(tree.scan(inputs / "volume"), "/volume", None, 1 << 20),),
    )
    plan = rumpbundle.plan(recipe)
    for format in formats.formats():
        for subformat in format.variants or ("",):
            directory = outputs / f"{format.name}-{subformat}"
            directory.mkdir()
            rumpbundle.write(plan, format, directory / f"app{format.suffix}", subformat=subformat)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
