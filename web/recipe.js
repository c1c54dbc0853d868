// What to bundle, as the form has it; as arguments of the command line; and as a link.

import { byId } from "./dom.js";

const TEXTS = ["cmdline", "mount", "config", "firmware", "name", "size"];
const FIRST = ["iso"];
/** By that name the command line takes words without a dot for images of a project, as the kernel's may be. */
const PROJECT = "rumpbundle.toml";

/** The files chosen or dropped: {kernel: [File], modules: […], data: [{name, data}], image: […]}. */
export const chosen = { kernel: [], modules: [], data: [], image: [] };

export const tickedFormats = () =>
  [...document.querySelectorAll("#formats input:checked")].map((box) => box.id.slice("format-".length));

/** Returns the recipe as {argv, files}: arguments behind `build`, and the files they name. */
export function recipe(formats) {
  const [kernel] = chosen.kernel;
  const files = [{ name: safe(kernel.name), data: kernel }];
  const taken = new Set([files[0].name, PROJECT]); // names of files and of directories
  const directory = (nth) => {
    let number = 2;
    while (taken.has(nth(number))) number++;
    taken.add(nth(number));
    return nth(number);
  };
  const add = (name, data) => {
    const plain = safe(name);
    const path = taken.has(plain) ? `${directory(String)}/${plain}` : plain;
    taken.add(path);
    files.push({ name: path, data });
    return path;
  };
  const argv = [`--formats=${formats.join(",")}`];
  const given = Object.fromEntries(TEXTS.map((id) => [id, byId(id).value]));
  if (given.cmdline) argv.push(`--cmdline=${given.cmdline}`);
  for (const module of chosen.modules) argv.push(`--module=${add(module.name, module)}`);
  if (chosen.data.length) {
    const top = directory((number) => (number === 2 ? "data.d" : `data${number - 1}.d`));
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
    if (field.value !== first(field)) kept.set(id, field.value);
  }
  kept.set("formats", tickedFormats().join(","));
  return `${location.href.split("#")[0]}#${kept}`;
}

/** What a field holds where nobody chose anything. */
const first = (field) => (field.tagName === "SELECT" ? field.options[0].value : field.defaultValue);

/** Fills the texts of the form from the address, if that has a recipe; what it does not say is as it is at first. */
export function restore() {
  const kept = new URLSearchParams(location.hash.slice(1));
  if (![...TEXTS, "formats"].some((id) => kept.has(id))) return;
  for (const id of TEXTS) {
    byId(id).value = kept.get(id) ?? first(byId(id));
    if (kept.has(id) && id !== "cmdline") byId("more").open = true;
  }
  if (!byId("firmware").value) byId("firmware").value = "both";
}

/** Ticks the formats of the address, as soon as the form has them. */
export function tick() {
  const kept = new URLSearchParams(location.hash.slice(1));
  const formats = kept.has("formats") ? kept.get("formats").split(",") : FIRST;
  for (const box of document.querySelectorAll("#formats input"))
    box.checked = formats.includes(box.id.slice("format-".length));
}
