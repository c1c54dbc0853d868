// Where rumpbundle runs: Python in a worker of its own, so that the page never waits for it.

import { loadPyodide } from "./lib/pyodide/pyodide.js";
import { provideDeflate } from "./deflate.js";
import { plain } from "./dom.js";
import { blobOf, runsOf, sparseFileSystem, unpack } from "./files.js";
import { provideHashes, sha256 } from "./hashes.js";
import { inputFileSystem } from "./inputs.js";

const OUT = "/out";
const PACKAGES = "/packages";
const MOST = 16 * 2 ** 30;
const WASM = { headers: { "content-type": "application/wasm" } };
const at = (path) => new URL(path, import.meta.url);
const fetched = (path) => fetch(at(path)).then((answer) => answer.arrayBuffer());

let room = MOST;
let python = null;
let page = null;
let inputs = null;
let current = 0; // the call that is worked on
const gone = new Set(); // the names of files that could not be read
const mounted = new Set();

// A static host may not know the type of WebAssembly, without which the browser does not compile it as it comes.
const { instantiateStreaming } = WebAssembly;
WebAssembly.instantiateStreaming = async (answer, imports) => {
  const { ok, headers, body } = await answer;
  const known = !ok || headers.get("content-type") === WASM.headers["content-type"];
  return instantiateStreaming(known ? answer : new Response(body, WASM), imports);
};

async function start() {
  const packages = fetched("lib/packages.data");
  const glue = fetched("page.py");
  python = await loadPyodide({ indexURL: at("lib/pyodide/").href, packageCacheDir: "/none" });
  const { FS } = python;
  const reader = new FileReaderSync();
  inputs = inputFileSystem(FS, (blob) => new Uint8Array(reader.readAsArrayBuffer(blob)), (name) => gone.add(name));
  FS.mkdir(PACKAGES);
  await unpack(FS, await packages, PACKAGES);
  await provideHashes(python, PACKAGES);
  provideDeflate(python, PACKAGES);
  FS.writeFile(`${PACKAGES}/page.py`, new Uint8Array(await glue));
  // Not from the directory we work in: what the user gives is no module, whatever its name.
  python.runPython(`import sys; sys.path[:] = [*(each for each in sys.path if each.startswith("/lib/")), "${PACKAGES}"]`);
  page = python.pyimport("page");
  FS.mkdir(OUT);
  estimate();
  return { version: page.version(), formats: JSON.parse(page.formats()) };
}

function run(argv, directory, out = "") {
  const told = (line) => postMessage({ id: current, line });
  gone.clear();
  const result = JSON.parse(page.run(python.toPy(argv), directory, told, out));
  for (const name of gone) result.err += `hint: choose ${plain(name)} again: it was changed, moved or removed since\n`;
  return { ...result, err: result.err.replaceAll(`${OUT}/`, ""), gone: [...gone] };
}

/** Shows `files`, a list of {name, data}, to Python as the directory `/NAME`, in the place of what was there. */
function show(directory, files) {
  const { FS } = python;
  const path = `/${directory}`;
  // What could not be shown left a directory.
  if (mounted.delete(path)) FS.unmount(path);
  else if (!FS.analyzePath(path).exists) FS.mkdir(path);
  FS.mount(inputs, { files }, path);
  mounted.add(path);
  return path;
}

/** Runs `action` with an empty directory for outputs, and returns what it returned and the files it left there. */
async function collecting(action) {
  const { FS } = python;
  FS.mount(sparseFileSystem(FS, () => room), {}, OUT);
  try {
    const begun = performance.now();
    const result = action();
    const seconds = (performance.now() - begun) / 1000;
    const files = [];
    for (const node of nodes(FS.lookupPath(OUT).node)) {
      const blob = blobOf(node);
      const name = FS.getPath(node).slice(OUT.length + 1);
      files.push({ name, size: blob.size, sha256: await sha256(blob.size, node.contents.written(blob.size)), runs: runsOf(node), blob });
    }
    return { ...result, seconds, files };
  } finally {
    FS.chdir("/");
    FS.unmount(OUT);
    estimate();
  }
}

/** Learns how much room there is for the next outputs; nobody waits for it. */
async function estimate() {
  const { quota, usage } = (await navigator.storage?.estimate?.().catch(() => null)) ?? {};
  room = Math.min(MOST, quota ? quota - usage : MOST);
}

function* nodes(directory) {
  for (const name of Object.keys(directory.contents).sort()) {
    const node = directory.contents[name];
    if (python.FS.isDir(node.mode)) yield* nodes(node);
    else yield node;
  }
}

const started = start();
started.catch(() => {}); // it is told to whom asks for it

const calls = {
  start: () => started,
  run: ({ directory, files, argv }) => run(argv, files ? show(directory, files) : `/${directory}`),
  make: ({ directory, files, argv }) =>
    collecting(() => run(argv, files ? show(directory, files) : `/${directory}`)),
  save: ({ directory, argv, name }) => collecting(() => run(argv, `/${directory}`, `${OUT}/${name}`)),
};

// One call at a time: a call may wait for the browser, and the next must not find the outputs of the last.
let queue = Promise.resolve();
// As soon as the page is told that it can work, and before anybody has chosen a kernel.
const warm = () => (queue = queue.then(() => page.warm()).catch(() => {}));
started.then(warm, () => {});
onmessage = ({ data: { id, call, argument } }) => {
  queue = queue.then(async () => {
    current = id;
    try {
      postMessage({ id, result: await calls[call](argument) });
    } catch (error) {
      postMessage({ id, error: String(error) });
    }
  });
};
