// Modules for Python over hash-wasm: `blake3`, and a SHA-256 that remembers where zeros lead.

import { isZero } from "./files.js";
import "./lib/hash-wasm/blake3.umd.min.js";
import "./lib/hash-wasm/sha256.umd.min.js";
import { throughZeros } from "./zeros.js";

const { createBLAKE3, createSHA256 } = globalThis.hashwasm;
/** Zeros that are remembered: a state before so many of them, at a multiple of them, and the state behind. */
const STEP = 512 << 10;
const REMEMBERED = 1 << 13;
/** Where a state that hash-wasm saved has the count of bytes and the words (src/sha256.c, as the tests see). */
const [LENGTH, WORDS] = [68, 76];
/** Bytes of a file that are hashed at once at most. */
const WHOLE = 32 << 20;
const zeros = new Uint8Array(STEP);
const behind = new Map();

/**
 * A hash that costs its zeros once. The disk of a volume for a cloud is a gigabyte of them, and is hashed by Python for
 * the manifest, again for the next format, and for the link that saves it.
 */
class Remembering {
  constructor(engine) {
    this.engine = engine;
  }

  init() {
    this.engine.init();
    this.length = 0;
    return this;
  }

  save() {
    return { state: this.engine.save(), length: this.length };
  }

  load({ state, length }) {
    this.engine.load(state);
    this.length = length;
  }

  update(bytes) {
    for (let at = 0; at < bytes.length; ) {
      const part = bytes.subarray(at, at + STEP - (this.length % STEP));
      if (part.length === STEP && isZero(part)) this.#step();
      else this.engine.update(part);
      this.length += part.length;
      at += part.length;
    }
  }

  #step() {
    const state = this.engine.save();
    const before = state.join();
    let after = behind.get(before);
    if (!after) {
      throughZeros(state.subarray(WORDS, WORDS + 32), STEP);
      const length = new DataView(state.buffer, state.byteOffset + LENGTH);
      length.setBigUint64(0, length.getBigUint64(0, true) + BigInt(STEP), true);
      if (behind.size >= REMEMBERED) behind.clear();
      behind.set(before, (after = state));
    }
    this.engine.load(after);
  }

  digest(form) {
    return this.engine.digest(form);
  }
}

/** Writes the modules `blake3` and `sha256`, each with a class of that name, into `directory`. */
export async function provideHashes(pyodide, directory) {
  provide(pyodide, directory, "blake3", await createBLAKE3());
  provide(pyodide, directory, "sha256", new Remembering(await createSHA256()));
}

/** Registers what the Python class below is made of: one engine, whose state the hashers take turns in. */
function provide(pyodide, directory, name, engine) {
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
  pyodide.registerJsModule(`_${name}`, {
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
  pyodide.FS.writeFile(`${directory}/${name}.py`, HASH.replaceAll("NAME", name));
}

const HASH = `"""NAME as its package or hashlib offers it, as far as rumpbundle uses it."""

import _NAME


class NAME:
    name = "NAME"
    digest_size = 32
    block_size = 64

    def __init__(self, data=b"", /, *, max_threads=1, usedforsecurity=True):
        self._hasher = _NAME.make()
        if len(data):
            self.update(data)

    def update(self, data, /):
        _NAME.update(self._hasher, memoryview(data))
        return self

    def digest(self):
        return _NAME.digest(self._hasher).to_bytes()

    def hexdigest(self):
        return self.digest().hex()

    def copy(self):
        other = object.__new__(NAME)
        other._hasher = _NAME.copy(self._hasher)
        return other

    def __del__(self):
        _NAME.drop(self._hasher)
`;

const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

/** Returns the SHA-256 in hex of `size` bytes, of which `written` yields [offset, bytes] of what is not zero, in order. */
export async function sha256(size, written) {
  // The browser's own is three times as fast; only pages from https: and localhost have it.
  if (size <= WHOLE && globalThis.crypto?.subtle) {
    const bytes = new Uint8Array(size);
    for (const [offset, part] of written) bytes.set(part, offset);
    return hex(new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)));
  }
  const hasher = new Remembering(await createSHA256()).init();
  const skip = (end) => {
    // In whole steps as soon as there are any.
    while (hasher.length < end) hasher.update(zeros.subarray(0, Math.min(end, hasher.length + STEP - (hasher.length % STEP)) - hasher.length));
  };
  for (const [offset, bytes] of written) {
    skip(offset);
    hasher.update(bytes);
  }
  skip(size);
  return hasher.digest("hex");
}
