// A module `blake3` for Python, over hash-wasm's BLAKE3; and the SHA-256 of what was made.

import "./lib/hash-wasm/blake3.umd.min.js";
import "./lib/hash-wasm/sha256.umd.min.js";

const { createBLAKE3, createSHA256 } = globalThis.hashwasm;
/** Bytes that a Blob may have to be hashed by the browser itself, which is faster but takes it whole. */
const AT_ONCE = (globalThis.navigator?.deviceMemory ?? 0) >= 8 ? 2 ** 31 - 1 : 256 << 20;
const STEP = 16 << 20;

/** Registers what the Python class of `BLAKE3` below is made of: one engine, whose state the hashers take turns in. */
export async function provideBlake3(pyodide, directory) {
  const engine = await createBLAKE3();
  let owner = null;
  const states = new Map();
  let last = 0;
  const take = (hasher) => {
    if (owner === hasher) return;
    if (owner !== null) states.set(owner, engine.save());
    engine.load(states.get(hasher));
    owner = hasher;
  };
  const fresh = engine.init().save();
  pyodide.registerJsModule("_blake3", {
    make() {
      states.set(++last, fresh);
      return last;
    },
    copy(hasher) {
      take(hasher);
      states.set(++last, engine.save());
      return last;
    },
    update(hasher, data) {
      take(hasher);
      const buffer = data.getBuffer("u8");
      try {
        engine.update(buffer.data);
      } finally {
        buffer.release();
      }
    },
    digest(hasher) {
      take(hasher);
      const before = engine.save();
      const digest = engine.digest("binary");
      engine.init();
      engine.load(before);
      return digest;
    },
    drop(hasher) {
      states.delete(hasher);
      if (owner === hasher) owner = null;
    },
  });
  pyodide.FS.writeFile(`${directory}/blake3.py`, BLAKE3);
}

const BLAKE3 = `"""BLAKE3 as the package of that name offers it, as far as rumpbundle uses it."""

import _blake3


class blake3:
    name = "blake3"
    digest_size = 32
    block_size = 64

    def __init__(self, data=b"", /, *, max_threads=1):
        self._hasher = _blake3.make()
        if len(data):
            self.update(data)

    def update(self, data, /):
        _blake3.update(self._hasher, memoryview(data))
        return self

    def digest(self):
        return _blake3.digest(self._hasher).to_bytes()

    def hexdigest(self):
        return self.digest().hex()

    def copy(self):
        other = object.__new__(blake3)
        other._hasher = _blake3.copy(self._hasher)
        return other

    def __del__(self):
        _blake3.drop(self._hasher)
`;

/** Returns the SHA-256 of a Blob, in hex. */
export async function sha256(blob) {
  if (globalThis.crypto?.subtle && blob.size <= AT_ONCE) {
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", await blob.arrayBuffer()));
    return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  }
  const hasher = await createSHA256();
  hasher.init();
  for (let at = 0; at < blob.size; at += STEP)
    hasher.update(new Uint8Array(await blob.slice(at, at + STEP).arrayBuffer()));
  return hasher.digest("hex");
}
