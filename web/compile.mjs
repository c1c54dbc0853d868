// Compiles Python modules with the Python that will run them: node compile.mjs PYODIDE SOURCES TARGET
//
// SOURCES is a directory of zip files. `python_stdlib.zip` becomes TARGET/python_stdlib.zip, with compiled modules in the
// place of their sources; all others become one archive, TARGET/packages.data (see `unpack` in files.js).

import { pathToFileURL } from "node:url";

const [pyodide, sources, target] = process.argv.slice(2);
const { loadPyodide } = await import(new URL("pyodide.mjs", `${pathToFileURL(pyodide).href}/`));
// A fixed seed: sets in compiled modules stand in the order of their hashes.
const python = await loadPyodide({ indexURL: `${pyodide}/`, env: { PYTHONHASHSEED: "0" } });
for (const [root, path] of [[sources, "/sources"], [target, "/target"]]) {
  python.FS.mkdir(path);
  python.FS.mount(python.FS.filesystems.NODEFS, { root }, path);
}
python.runPython(`
import gzip, io, tarfile, zipfile
from importlib._bootstrap_external import _code_to_hash_pyc
from importlib.util import source_hash
from pathlib import Path

STDLIB = Path("/sources/python_stdlib.zip")
DAY = (1980, 1, 1, 0, 0, 0)

def compiled(archive, place):
    """Yield the name and bytes of all in *archive*, the modules compiled as if they were in *place*."""
    with zipfile.ZipFile(archive) as opened:
        for name in sorted(each for each in opened.namelist() if not each.endswith("/")):
            data = opened.read(name)
            if name.endswith(".py"):
                code = compile(data, f"{place}/{name}", "exec", dont_inherit=True)
                yield f"{name}c", _code_to_hash_pyc(code, source_hash(data), False)
            else:
                yield name, data

if STDLIB.exists():
    with zipfile.ZipFile("/target/python_stdlib.zip", "w") as out:
        for name, data in compiled(STDLIB, "/lib/python314.zip"):
            out.writestr(zipfile.ZipInfo(name, DAY), data, zipfile.ZIP_DEFLATED, 9)
wheels = sorted(Path("/sources").glob("*.whl"))
if wheels:
    with (
        open("/target/packages.data", "wb") as raw,
        gzip.GzipFile("", "wb", 9, raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as out,
    ):
        for wheel in wheels:
            for name, data in compiled(wheel, "/packages"):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                out.addfile(member, io.BytesIO(data))
`);
