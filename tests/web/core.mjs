// Runs unit tests of the core under Pyodide in Node.js: node core.mjs PAGE REPOSITORY SITE_PACKAGES HYPOTHESIS PYTEST_ARGUMENT…
//
// PAGE is a built page, whose Pyodide, rumpbundle, msgspec, BLAKE3 and libdeflate are used; HYPOTHESIS is a wheel for it; pytest and
// what else is pure Python comes from SITE_PACKAGES.

import { readFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";

const [page, repository, site, hypothesis, ...argv] = process.argv.slice(2);
const at = (path) => new URL(path, `${pathToFileURL(page).href}/`);
const { loadPyodide } = await import(at("lib/pyodide/pyodide.js"));
const { provideHashes } = await import(at("hashes.js"));
const { provideDeflate } = await import(at("deflate.js"));
const { sparseFileSystem, unpack } = await import(at("files.js"));

const python = await loadPyodide({ indexURL: `${page}/lib/pyodide/` });
const { FS } = python;
FS.mkdir("/packages");
await unpack(FS, await readFile(at("lib/packages.data")), "/packages");
python.unpackArchive(new Uint8Array(await readFile(hypothesis)).buffer, "wheel", { extractDir: "/packages" });
await provideHashes(python, "/packages");
provideDeflate(python, "/packages");
for (const [root, path] of [[repository, "/repository"], [site, "/site"]]) {
  FS.mkdir(path);
  FS.mount(FS.filesystems.NODEFS, { root }, path);
}
FS.mkdir("/work");
FS.mount(sparseFileSystem(FS, () => 2 ** 50), {}, "/tmp");
FS.writeFile("/work/pytest.ini", `[pytest]
pythonpath = /repository/tests
addopts = --import-mode=importlib -p no:cacheprovider -p no:xdist -p no:timeout -p without_a_host
markers =
    boot: boots an image
    browser: drives the page
`);
FS.writeFile("/work/without_a_host.py", `
"""Skips a test that itself needs a program, a thread or a hard link.

Where rumpbundle needs anything else of a host, the test fails.
"""
import pytest

WORDS = ("does not support processes", "can't start new thread", "has no attribute 'link'", "has no attribute 'mkfifo'",
         "has no attribute 'copy_file_range'", "No module named 'resource'")
OURS = ("/repository/", "/packages/rumpbundle/")

@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if not report.failed or call.excinfo is None:
        return report
    ours = [str(each.path) for each in call.excinfo.traceback if str(each.path).startswith(OURS)]
    why = str(call.excinfo.value)
    itself = ours and ours[-1].startswith("/repository/tests/") and any(word in why for word in WORDS)
    if itself:
        report.outcome = "skipped"
        report.longrepr = (ours[-1], 0, f"Skipped: {why}")
    return report
`);
python.globals.set("argv", python.toPy(argv));
const status = python.runPython(`
import os, sys
sys.path[:] = ["/packages", "/work", *(each for each in sys.path if each.startswith("/lib/")), "/site"]
sys.dont_write_bytecode = True
os.environ.update(HYPOTHESIS_STORAGE_DIRECTORY="/work/hypothesis", HYPOTHESIS_NO_PLUGINS="1")
os.chdir("/work")
import hashlib, pytest, sha256
hashlib.sha256 = sha256.sha256
int(pytest.main(["-c", "/work/pytest.ini", "--rootdir=/repository", *argv]))
`);
process.exit(status);
