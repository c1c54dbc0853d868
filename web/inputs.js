// What the user gives, as files for Python: read where they lie, whatever their names and sizes.

const [ENOENT, EINVAL, EIO, EROFS] = [44, 28, 29, 69];
// A browser does not tell the modes of files: they are those that a file has where nobody chose any.
const [FILE, DIRECTORY] = [0o100644, 0o40755];
/** Bytes read at once: a browser takes a millisecond to read anything at all. */
const WINDOW = 1 << 20;
const WINDOWS = 8;

/**
 * Returns a file system of `mount.opts.files`, a list of {name, data}: a path, and a Blob. `read(blob)` returns its bytes,
 * or throws; then `unreadable(name)` is told, and Python gets an error.
 */
export function inputFileSystem(FS, read, unreadable) {
  const refuse = (code) => () => {
    throw new FS.ErrnoError(code);
  };
  const windows = new Map(); // node -> {start, bytes}, those used last at the end

  function bytesOf({ contents, path }, start, end) {
    try {
      return read(contents.slice(start, end));
    } catch {
      unreadable(path);
      throw new FS.ErrnoError(EIO);
    }
  }

  function windowAt(node, position) {
    const start = position - (position % WINDOW);
    let found = windows.get(node);
    windows.delete(node);
    if (found?.start !== start) found = { start, bytes: bytesOf(node, start, start + WINDOW) };
    windows.set(node, found);
    if (windows.size > WINDOWS) windows.delete(windows.keys().next().value);
    return found.bytes.subarray(position - start);
  }

  const stream_ops = {
    read({ node }, into, offset, length, position) {
      const end = Math.min(position + length, node.size);
      for (let at = position; at < end; ) {
        // What covers whole windows is not kept.
        const most = at % WINDOW || end - at < WINDOW ? Math.min(end - at, WINDOW - (at % WINDOW)) : end - at;
        const part = most < WINDOW ? windowAt(node, at).subarray(0, most) : bytesOf(node, at, end);
        into.set(part, offset + at - position);
        at += part.length;
      }
      return Math.max(end - position, 0);
    },
    write: refuse(EROFS),
    llseek(stream, offset, whence) {
      const position = offset + (whence === 1 ? stream.position : whence === 2 ? stream.node.size : 0);
      return position < 0 ? refuse(EINVAL)() : position;
    },
  };
  const node_ops = {
    getattr: (node) => {
      const [atime, mtime, ctime] = [new Date(0), new Date(0), new Date(0)];
      const { id: ino, mode, size } = node;
      return { dev: 1, ino, mode, nlink: 1, uid: 0, gid: 0, rdev: 0, size, atime, mtime, ctime, blksize: 4096, blocks: Math.ceil(size / 512) };
    },
    setattr() {},
    lookup: (parent, name) => parent.contents.get(name) ?? refuse(ENOENT)(),
    readdir: (node) => [".", "..", ...node.contents.keys()],
    ...Object.fromEntries(["mknod", "rename", "unlink", "rmdir", "symlink"].map((name) => [name, refuse(EROFS)])),
  };

  function make(parent, name, mode, more) {
    const node = FS.createNode(parent, name, mode, 0);
    parent?.contents.set(name, node);
    return Object.assign(node, { node_ops, stream_ops }, more);
  }
  // Maps, not objects: a file may be called __proto__.
  const directory = (parent, name) => make(parent, name, DIRECTORY, { contents: new Map(), size: 4096 });
  return {
    mount({ opts }) {
      const root = directory(null, "/");
      for (const { name: path, data } of opts.files) {
        const names = path.split("/");
        const last = names.pop();
        let parent = root;
        for (const name of names) parent = parent.contents.get(name) ?? directory(parent, name);
        if (!(parent.contents instanceof Map) || parent.contents.has(last)) throw new Error(`${path}: its name is taken`);
        make(parent, last, FILE, { contents: data, size: data.size, path });
      }
      return root;
    },
  };
}
