// Files for Python's file system: what is made takes no room for its zeros.

const CHUNK = 1 << 20;
const ENOSPC = 51;
const EIO = 29;

export function isZero(bytes) {
  const { buffer, byteOffset, length } = bytes;
  const count = byteOffset % 4 ? 0 : length >> 2; // four bytes at a time where they stand so
  const words = new Uint32Array(buffer, count && byteOffset, count);
  for (let at = 0; at < count; at++) if (words[at]) return false;
  for (let at = count * 4; at < length; at++) if (bytes[at]) return false;
  return true;
}

/** The bytes of a file that is written in any order. What is zero costs nothing. */
class Sparse {
  constructor() {
    this.chunks = new Map();
  }

  read(into, offset, length, position) {
    for (let done = 0; done < length; ) {
      const at = (position + done) % CHUNK;
      const count = Math.min(CHUNK - at, length - done);
      const chunk = this.chunks.get(Math.floor((position + done) / CHUNK));
      if (chunk) into.set(chunk.subarray(at, at + count), offset + done);
      else into.fill(0, offset + done, offset + done + count);
      done += count;
    }
  }

  write(data, position) {
    for (let done = 0; done < data.length; ) {
      const at = (position + done) % CHUNK;
      const count = Math.min(CHUNK - at, data.length - done);
      const index = Math.floor((position + done) / CHUNK);
      const part = data.subarray(done, done + count);
      done += count;
      let chunk = this.chunks.get(index);
      if (!chunk && isZero(part)) continue;
      if (!chunk) this.chunks.set(index, (chunk = new Uint8Array(CHUNK)));
      chunk.set(part, at);
    }
  }

  truncate(size) {
    for (const [index, chunk] of this.chunks) {
      if (index * CHUNK >= size) this.chunks.delete(index);
      else if ((index + 1) * CHUNK > size) chunk.fill(0, size - index * CHUNK);
    }
  }

  /** Yields [offset, bytes] of what was written, in order. */
  *written(size) {
    for (const index of [...this.chunks.keys()].sort((a, b) => a - b)) {
      const offset = index * CHUNK;
      yield [offset, this.chunks.get(index).subarray(0, Math.min(CHUNK, size - offset))];
    }
  }
}

/** Returns a file system for outputs: `limit()` says how many bytes there is room for, zeros included. */
export function sparseFileSystem(FS, limit) {
  const { MEMFS } = FS.filesystems;
  const size = (node) => node.usedBytes;
  const refuse = (code) => {
    throw new FS.ErrnoError(code);
  };
  const grow = (node, wanted) => {
    if (wanted > limit()) refuse(ENOSPC);
    node.usedBytes = wanted;
  };
  const stream = {
    llseek(stream, offset, whence) {
      const position = offset + (whence === 1 ? stream.position : whence === 2 ? size(stream.node) : 0);
      return position < 0 ? refuse(28) : position;
    },
    read({ node }, into, offset, length, position) {
      const count = Math.max(Math.min(length, size(node) - position), 0);
      node.contents.read(into, offset, count, position);
      return count;
    },
    write({ node }, from, offset, length, position) {
      if (position + length > size(node)) grow(node, position + length);
      try {
        node.contents.write(from.subarray(offset, offset + length), position);
      } catch (error) {
        refuse(error instanceof RangeError ? ENOSPC : EIO);
      }
      node.mtime = node.ctime = Date.now();
      return length;
    },
  };
  const system = {
    mount: () => make(null, "/", 0o40755, 0),
  };
  function make(parent, name, mode, device) {
    const node = MEMFS.createNode(parent, name, mode, device);
    if (FS.isFile(node.mode)) {
      node.contents = new Sparse();
      node.stream_ops = stream;
      node.node_ops = {
        ...node.node_ops,
        getattr: (node) => ({ ...MEMFS.node_ops.getattr(node), blocks: (node.contents.chunks.size * CHUNK) / 512 }),
        setattr(node, attr) {
          MEMFS.node_ops.setattr(node, { ...attr, size: undefined });
          if (attr.size === undefined) return;
          if (attr.size > size(node)) return grow(node, attr.size);
          node.usedBytes = attr.size;
          node.contents.truncate(attr.size);
        },
      };
    } else if (FS.isDir(node.mode)) {
      node.node_ops = { ...node.node_ops, mknod: make };
    }
    return node;
  }
  return system;
}

let zeros = null;

/** Returns `size` zero bytes as parts of a Blob, which share their memory. */
function* zeroParts(size) {
  zeros ??= new Blob([new Uint8Array(CHUNK)]);
  for (; size >= CHUNK; size -= CHUNK) yield zeros;
  if (size) yield zeros.slice(0, size);
}

/** Returns a finished file of the sparse file system as a Blob. */
export function blobOf(node) {
  const parts = [];
  let end = 0;
  for (const [offset, bytes] of node.contents.written(node.usedBytes)) {
    parts.push(...zeroParts(offset - end), bytes);
    end = offset + bytes.length;
  }
  parts.push(...zeroParts(node.usedBytes - end));
  return new Blob(parts, { type: "application/octet-stream" });
}

/** Returns where the bytes of a finished file are, so that a writer can skip the zeros: [[offset, length], …]. */
export function runsOf(node) {
  return [...node.contents.written(node.usedBytes)].map(([offset, bytes]) => [offset, bytes.length]);
}

const BLOCK = 512;

/**
 * Writes the files of a gzipped tar into Python's file system. Its name does not end in .gz: some hosts would tell the
 * browser to unpack that.
 */
export async function unpack(FS, packed, directory) {
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const text = (at, length) => new TextDecoder().decode(bytes.subarray(at, at + length)).replace(/\0.*$/s, "");
  for (let at = 0; bytes[at]; ) {
    const [name, prefix, size] = [text(at, 100), text(at + 345, 155), parseInt(text(at + 124, 12), 8)];
    const path = `${directory}/${prefix && `${prefix}/`}${name}`;
    FS.mkdirTree(path.slice(0, path.lastIndexOf("/")));
    at += BLOCK;
    FS.writeFile(path, bytes.subarray(at, at + size));
    at += Math.ceil(size / BLOCK) * BLOCK;
  }
}
