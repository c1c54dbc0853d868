// What to bundle, as the form has it; as arguments of the command line; and as a link.

import { byId } from "./dom.js";

const TEXTS = ["cmdline", "mount", "config", "firmware", "name", "size"];
const FIRST = ["iso"];

/** The files chosen or dropped: {kernel: [File], modules: […], data: [{name, data}], image: […]}. */
export const chosen = { kernel: [], modules: [], data: [], image: [] };

export const tickedFormats = () =>
  [...document.querySelectorAll("#formats input:checked")].map((box) => box.id.slice("format-".length));

/** Returns the recipe as {argv, files}: arguments behind `build`, and the files they name. */
export function recipe(formats) {
  const [kernel] = chosen.kernel;
  const files = [{ name: safe(kernel.name), data: kernel }];
  const taken = new Set([files[0].name]);
  const add = (name, data) => {
    let path = safe(name);
    for (let number = 2; taken.has(path); number++) path = `${number}/${safe(name)}`;
    taken.add(path);
    files.push({ name: path, data });
    return path;
  };
  const argv = [`--formats=${formats.join(",")}`];
  const given = Object.fromEntries(TEXTS.map((id) => [id, byId(id).value]));
  if (given.cmdline) argv.push(`--cmdline=${given.cmdline}`);
  for (const module of chosen.modules) argv.push(`--module=${add(module.name, module)}`);
  if (chosen.data.length) {
    const top = "data.d";
    for (const { name, data } of chosen.data) files.push({ name: `${top}/${name}`, data });
    argv.push(`--data=${top}:${given.mount}`);
  }
  if (given.config.trim()) argv.push(`--config=${add("cfg.json", new Blob([given.config]))}`);
  if (given.firmware !== "both") argv.push(`--firmware=${given.firmware}`);
  if (given.name) argv.push(`--name=${given.name}`);
  if (given.size) argv.push(`--size=${given.size}`);
  return { argv: [...argv, argument(files[0].name)], files };
}

/** Returns a file name as an argument that no program takes for an option. */
export const argument = (name) => (name.startsWith("-") ? `./${name}` : name);

/** Returns a file name of the user's as one of ours: a slash or a NUL would lead elsewhere. */
export function safe(name) {
  const plain = name.replace(/[/\0]/g, "_");
  return plain === "." || plain === ".." || plain === "" ? "_" : plain;
}

/** Returns the address of this page with the recipe in it: what was typed and ticked, never a file. */
export function address() {
  const kept = new URLSearchParams();
  for (const id of TEXTS) {
    const field = byId(id);
    const first = field.tagName === "SELECT" ? field.options[0].value : field.defaultValue;
    if (field.value !== first) kept.set(id, field.value);
  }
  kept.set("formats", tickedFormats().join(","));
  return `${location.href.split("#")[0]}#${kept}`;
}

/** Fills the form from the address: texts now, formats where they exist. */
export function restore() {
  const kept = new URLSearchParams(location.hash.slice(1));
  for (const id of TEXTS) {
    if (!kept.has(id)) continue;
    byId(id).value = kept.get(id);
    if (id !== "cmdline") byId("more").open = true;
  }
  if (!byId("firmware").value) byId("firmware").value = "both";
  const formats = kept.has("formats") ? kept.get("formats").split(",") : FIRST;
  for (const box of document.querySelectorAll("#formats input"))
    box.checked = formats.includes(box.id.slice("format-".length));
}
