// A file that was made, as something to save.

import { element, plain, shownSize } from "./dom.js";

const urls = new Map();

/** Returns a list item with a link that saves `file`, and where the browser can, a button that streams it to disk. */
export function saved({ name, size, sha256, runs, blob }, owner) {
  const url = URL.createObjectURL(blob);
  urls.set(owner, [...(urls.get(owner) ?? []), url]);
  const link = element("a", { href: url, download: name.split("/").pop(), "data-digest": sha256, "data-size": size }, plain(name));
  const item = element("li", {}, link, element("span", {}, shownSize(size)));
  if (globalThis.showSaveFilePicker) {
    const button = element("button", { type: "button", title: "Write it straight to a file, without its zeros" }, "Save as …");
    button.onclick = () => stream(link.download, blob, size, runs, button);
    item.append(button);
  } else item.append(element("span"));
  item.append(element("span", { class: "digest" }, `SHA-256 ${sha256}`));
  return item;
}

async function stream(name, blob, size, runs, button) {
  let handle;
  try {
    handle = await showSaveFilePicker({ suggestedName: name });
  } catch (error) {
    if (error.name !== "AbortError") button.textContent = `Not saved: ${error.message}`;
    return; // nobody chose a file
  }
  button.disabled = true;
  try {
    // It takes its name when it is closed: a write that fails leaves nothing.
    const out = await handle.createWritable();
    try {
      await out.truncate(size);
      for (const [position, length] of runs)
        await out.write({ type: "write", position, data: blob.slice(position, position + length) });
      await out.close();
    } catch (error) {
      await out.abort();
      throw error;
    }
    button.textContent = "Saved";
  } catch (error) {
    button.textContent = `Not saved: ${error.message}`;
  } finally {
    button.disabled = false;
  }
}

/** Takes back what `saved` gave out for `owner`. */
export function forget(owner) {
  for (const url of urls.get(owner) ?? []) URL.revokeObjectURL(url);
  urls.delete(owner);
}
