// Files that are chosen, or dropped on a field; a directory with all that is in it.

import { byId } from "./dom.js";

// What is dropped beside a field would take the place of the page.
for (const kind of ["dragover", "drop"]) addEventListener(kind, (event) => event.preventDefault());

/**
 * Lets `taken(files)` have what is chosen in the input `id` or dropped on its field: a list of {name, data}. Where a
 * directory is dropped and files are wanted, `refused(name)` is called.
 */
export function onFiles(id, taken, refused) {
  const input = byId(id);
  input.addEventListener("change", () => {
    const files = [...input.files];
    // A directory's own name is no part of the paths below it.
    const path = (file) => file.webkitRelativePath.split("/").slice(1).join("/") || file.name;
    taken(files.map((file) => ({ name: path(file), data: file })));
  });
  const field = input.closest(".drop");
  const over = (on) => (event) => {
    event.preventDefault();
    field.classList.toggle("over", on);
  };
  field.addEventListener("dragenter", over(true));
  field.addEventListener("dragover", over(true));
  field.addEventListener("dragleave", over(false));
  field.addEventListener("drop", async (event) => {
    over(false)(event);
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    const { files } = event.dataTransfer;
    if (!entries.length && !files.length) return; // a piece of text, say
    const directory = entries.find((entry) => entry.isDirectory);
    if (!directory) {
      input.files = files; // so that the field shows their names
      return taken([...files].map((file) => ({ name: file.name, data: file })));
    }
    if (!input.webkitdirectory) return refused(directory.name);
    input.value = "";
    const found = [];
    // The name of one directory is no part of the paths below it; several would get into each other's way without.
    for (const entry of entries) await gather(entry, entries.length === 1 ? "" : entry.name, found);
    taken(found);
  });
}

async function gather(entry, path, found) {
  if (entry.isFile) {
    found.push({ name: path, data: await new Promise((resolve, reject) => entry.file(resolve, reject)) });
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return;
    for (const each of some) await gather(each, path ? `${path}/${each.name}` : each.name, found);
  }
}
