"""Builds the page into ``build/page``: our own files, and what is pinned in ``package-lock.json`` and ``wheels.txt``.

usage: python web/build.py [DIRECTORY]

Everything the page ever loads is in that directory, so any static host can serve it, below any path.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

WEB = Path(__file__).resolve().parent
ROOT = WEB.parent
CACHE = ROOT / ".cache" / "page"
MODULES = CACHE / "node_modules"
BIOS = Path("/usr/share/seabios")
PYTHON = ("3.14", "cp314", "pyemscripten_2026_0_wasm32")
"""Pyodide's Python: version, ABI, platform."""
STDLIB = "python_stdlib.zip"
LOCK = "pyodide-lock.json"
MOST = 25_000_000
"""Bytes of the whole page."""

OWN = ("*.html", "*.css", "*.js", "*.svg", "page.py")
COPIED = {
    "lib/pyodide": ("pyodide/pyodide.mjs", "pyodide/pyodide.asm.mjs", "pyodide/pyodide.asm.wasm"),
    "lib/v86": ("v86/build/libv86.mjs", "v86/build/v86.wasm"),
    "lib/xterm": ("@xterm/xterm/lib/xterm.mjs", "@xterm/xterm/css/xterm.css"),
    "lib/libdeflate": ("libdeflate/dist/libdeflate.wasm.mjs",),
    "lib/hash-wasm": ("hash-wasm/dist/blake3.umd.min.js", "hash-wasm/dist/sha256.umd.min.js"),
}  # fmt: skip
LICENCES = {
    "v86": "v86/LICENSE",
    "xterm.js": "@xterm/xterm/LICENSE",
    "hash-wasm": "hash-wasm/LICENSE",
    "libdeflate": "libdeflate/LICENSE.txt",
}


def main(target: Path) -> None:
    check_ours(target)
    fetch_modules()
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for pattern in OWN:
        for path in sorted(WEB.glob(pattern)):
            shutil.copyfile(path, target / path.name)
    for directory, names in COPIED.items():
        (target / directory).mkdir(parents=True)
        for name in names:
            copy_script(MODULES / name, target / directory / Path(name).name)
    copy_bios(target / "lib" / "bios")
    copy_modules(target)
    copy_licences(target / "licences")
    (target / "package.json").write_text('{"type": "module"}\n', "ascii")  # for Node.js
    finish(target)


def check_ours(target: Path) -> None:
    """End here if *target*, which is emptied, holds anything but a page that was built before."""
    if not target.exists():
        return
    mark = (WEB / "sw.js").read_text("utf-8").partition("\n")[0]
    worker = target / "sw.js"
    if not target.is_dir() or (
        any(target.iterdir()) and not (worker.is_file() and worker.read_text("utf-8", "replace").startswith(mark))
    ):
        sys.exit(f"error: {target}: is there, and is no page that this has built, so it is not replaced")


def fetch_modules() -> None:
    """Install the npm packages of the lock file, unless they are there."""
    CACHE.mkdir(parents=True, exist_ok=True)
    wanted = (WEB / "package-lock.json").read_text("utf-8")
    stamp = CACHE / "installed"
    if stamp.exists() and stamp.read_text("utf-8") == wanted:
        return
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(WEB / name, CACHE / name)
    subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"],
                   cwd=CACHE, check=True, stdout=sys.stderr)  # fmt: skip
    stamp.write_text(wanted, "utf-8")


def fetch_wheels(requirements: str = "wheels.txt") -> list[Path]:
    """Return the wheels of *requirements*, downloaded unless they are there."""
    target = CACHE / requirements.removesuffix(".txt")
    wanted = (WEB / requirements).read_text("utf-8")
    stamp = target / "fetched"
    if not stamp.exists() or stamp.read_text("utf-8") != wanted:
        shutil.rmtree(target, ignore_errors=True)
        version, abi, platform = PYTHON
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps",
                        "--require-hashes", "--only-binary=:all:", "--implementation=cp", f"--abi={abi}",
                        f"--python-version={version}", f"--platform={platform}", f"--dest={target}",
                        f"--requirement={requirements}"], cwd=WEB, check=True, stdout=sys.stderr)  # fmt: skip
        stamp.write_text(wanted, "utf-8")
    return sorted(target.glob("*.whl"))


def copy_script(source: Path, target: Path) -> None:
    """Copy a file of a package; a module under the name ``.js``, which every static host serves as a script."""
    if target.suffix != ".mjs":
        shutil.copyfile(source, target)
        return
    text = re.sub(r"\n//# sourceMappingURL=.*", "", source.read_text("utf-8"))
    target.with_suffix(".js").write_text(text.replace("pyodide.asm.mjs", "pyodide.asm.js"), "utf-8")


def copy_bios(target: Path) -> None:
    target.mkdir(parents=True)
    for source, name in (("bios.bin", "seabios.bin"), ("vgabios-stdvga.bin", "vgabios.bin")):
        if not (BIOS / source).exists():
            sys.exit(f"error: {BIOS / source}: no such file\nhint: on Debian and Ubuntu: sudo apt install seabios")
        shutil.copyfile(BIOS / source, target / name)


def copy_modules(target: Path) -> None:
    """Put in what Python imports, compiled; and the wheel it is from, with GRUB's boot images in it."""
    (target / "wheels").mkdir()
    pyodide = target / "lib" / "pyodide"
    shutil.copyfile(compiled_stdlib(), pyodide / STDLIB)
    # Of what Pyodide could fetch from elsewhere the page wants nothing.
    lock = json.loads((MODULES / "pyodide" / LOCK).read_text("utf-8"))
    (pyodide / LOCK).write_text(json.dumps({"info": lock["info"], "packages": {}}) + "\n", "ascii")
    with tempfile.TemporaryDirectory() as scratch:
        made, sources = Path(scratch) / "made", Path(scratch) / "sources"
        subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", made],
                       cwd=ROOT, check=True, stdout=sys.stderr)  # fmt: skip
        (wheel,) = made.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            if "rumpbundle/bootimages/efi.img" not in archive.namelist():
                sys.exit("error: GRUB is not installed, and without its boot images the page can make nothing")
        shutil.copyfile(wheel, target / "wheels" / "rumpbundle.whl")
        sources.mkdir()
        for each in (wheel, *fetch_wheels()):
            shutil.copyfile(each, sources / each.name)
        compile_modules(sources, made)
        shutil.copyfile(made / "packages.data", target / "lib" / "packages.data")


def compiled_stdlib() -> Path:
    """Return Pyodide's standard library with compiled modules; it is made once for a lock file and a compiler."""
    kept = CACHE / "stdlib"
    script = (WEB / "compile.mjs").read_bytes()
    wanted = hashlib.sha256((WEB / "package-lock.json").read_bytes() + script).hexdigest()
    stamp = kept / "made"
    if not stamp.exists() or stamp.read_text("ascii") != wanted:
        shutil.rmtree(kept, ignore_errors=True)
        sources = kept / "sources"
        sources.mkdir(parents=True)
        shutil.copyfile(MODULES / "pyodide" / STDLIB, sources / STDLIB)
        compile_modules(sources, kept)
        stamp.write_text(wanted, "ascii")
    return kept / STDLIB


def compile_modules(sources: Path, target: Path) -> None:
    """Compile the modules of the zip files in *sources* by Pyodide's own Python, into *target*."""
    subprocess.run(["node", WEB / "compile.mjs", MODULES / "pyodide", sources, target], check=True, stdout=sys.stderr)


def copy_licences(target: Path) -> None:
    """Put the licences of what is shipped where the page links to them."""
    target.mkdir(parents=True)
    for wheel in fetch_wheels():
        with zipfile.ZipFile(wheel) as archive:
            (text,) = (name for name in archive.namelist() if re.search(r"dist-info/.*(LICENSE|COPYING)[^/]*$", name))
            (target / f"{wheel.name.split('-')[0]}.txt").write_bytes(archive.read(text))
    for name, source in LICENCES.items():
        shutil.copyfile(MODULES / source, target / f"{name}.txt")
    for name in ("GPL-3", "LGPL-3", "MPL-2.0"):
        source = Path("/usr/share/common-licenses") / name
        if source.exists():
            shutil.copyfile(source, target / f"{name}.txt")


def finish(target: Path) -> None:
    """Tell the service worker what there is, and check the sizes."""
    files = sorted(path for path in target.rglob("*") if path.is_file())
    names = [path.relative_to(target).as_posix() for path in files]
    digest = hashlib.sha256()
    for name, path in zip(names, files, strict=True):
        digest.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    worker = target / "sw.js"
    text = worker.read_text("utf-8")
    kept = ["./", *(name for name in names if not name.startswith(("sw.js", "licences/")))]
    worker.write_text(
        text.replace("[/* files */]", json.dumps(kept)).replace("VERSION", digest.hexdigest()[:16]), "utf-8"
    )
    size = sum(path.stat().st_size for path in files)
    own = sum((target / name).stat().st_size for name in names if "/" not in name)
    print(f"{target}: {len(files)} files, {size / 1e6:.1f} MB, {own / 1e3:.0f} kB of them our own")
    if size > MOST:
        sys.exit(f"error: {target}: {size} bytes are more than {MOST}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "page")
