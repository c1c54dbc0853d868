// A module `deflate` for Python, over npm's libdeflate: its output depends on libdeflate's version alone, which is the
// one of the package of that name on PyPI (the tests compare them).

import libdeflate from "./lib/libdeflate/libdeflate.wasm.js";

export function provideDeflate(pyodide, directory) {
  const engine = libdeflate();
  const compressors = new Map();
  pyodide.registerJsModule("_deflate", {
    compress(format, data, level) {
      if (!compressors.has(level)) compressors.set(level, engine._libdeflate_alloc_compressor(level));
      const compressor = compressors.get(level);
      const source = data.getBuffer("u8");
      const length = source.data.length;
      const bound = engine[`_libdeflate_${format}_compress_bound`](compressor, length);
      const [from, to] = [engine._malloc(length || 1), engine._malloc(bound)];
      try {
        engine.HEAPU8.set(source.data, from);
        const written = engine[`_libdeflate_${format}_compress`](compressor, from, length, to, bound);
        return engine.HEAPU8.slice(to, to + written);
      } finally {
        engine._free(from);
        engine._free(to);
        source.release();
      }
    },
  });
  pyodide.FS.writeFile(`${directory}/deflate.py`, DEFLATE);
}

const DEFLATE = `"""libdeflate as the package deflate offers it, as far as rumpbundle uses it."""

import zlib

import _deflate


class DeflateError(Exception):
    pass


def deflate_compress(data, compresslevel=6):
    return bytearray(_deflate.compress("deflate", memoryview(data), compresslevel).to_bytes())


def zlib_compress(data, compresslevel=6):
    return bytearray(_deflate.compress("zlib", memoryview(data), compresslevel).to_bytes())


def deflate_decompress(data, originalsize):
    stream = zlib.decompressobj(-15)
    try:
        plain = stream.decompress(data)
    except zlib.error as error:
        raise DeflateError(str(error)) from None
    if not stream.eof or len(plain) != originalsize:
        raise DeflateError("the data is damaged, or of another size")
    return bytearray(plain)
`;
