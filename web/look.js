// What a finished image is, in every layer, and the files in it.

import { boot } from "./boot.js";
import { byId, element, plain, shownSize, sorted } from "./dom.js";
import { ask } from "./python.js";
import { argument, safe } from "./recipe.js";
import { forget, saved } from "./save.js";

const SHOWN = 500;
const MORE = ["check", "verify"];

let looks = 0;

/** Shows everything known of the image in `file`: {name, data}. */
export async function look(file) {
  const mine = ++looks;
  byId("report").ariaBusy = "true";
  try {
    await shown(file, () => mine !== looks);
  } finally {
    if (mine === looks) byId("report").ariaBusy = "false";
  }
}

async function shown(file, over) {
  forget("look");
  byId("found").hidden = true;
  byId("look-error").textContent = "";
  byId("report").textContent = "";
  byId("entries").replaceChildren();
  const safely = safe(file.name);
  const name = argument(safely);
  const here = { directory: "look" };
  const report = await ask("make", { ...here, files: [{ name: safely, data: file.data }], argv: ["inspect", "--svg=/out/disk.svg", name] });
  const told = report.status ? await ask("run", { ...here, argv: ["inspect", name] }) : report;
  if (over()) return;
  const { errors } = sorted(told.err);
  if (told.status) {
    byId("look-error").textContent = errors;
    byId("report").textContent = errors;
    return;
  }
  byId("found").hidden = false;
  byId("report").textContent = told.out;
  drawn(report.files[0]);
  byId("boot-image").hidden = !report.files.length;
  byId("boot-image").onclick = () => boot(file.data, /\.iso$/i.test(name));
  await listed(here, name, over);
  // A kernel has no picture, and is nothing to verify.
  for (const command of report.files.length ? MORE : ["check"]) {
    const { said, wrong } = await judged(here, command, name);
    if (over()) return;
    byId("report").textContent += said;
    // What is wrong with it is not to be looked for at the end of a long report.
    byId("look-error").textContent += wrong;
  }
}

/** Returns what a further command says of the image, and what of that is wrong; nothing if this rumpbundle has no such command. */
async function judged(here, command, name) {
  const { status, out, err } = await ask("run", { ...here, argv: [command, name] });
  const { errors } = sorted(err);
  if (/no such command/.test(errors)) return { said: "", wrong: "" };
  const all = [out.trimEnd(), errors].filter(Boolean).join("\n");
  return { said: `\n${all}\n`, wrong: status && command === "verify" ? all : errors };
}

function drawn(picture) {
  byId("picture-figure").hidden = !picture;
  if (!picture) return;
  // As an image, a drawing runs nothing, whatever the names in it.
  const reader = new FileReader();
  reader.onload = () => (byId("picture").src = reader.result);
  reader.readAsDataURL(new Blob([picture.blob], { type: "image/svg+xml" }));
}

async function listed(here, name, over) {
  const { status, out } = await ask("run", { ...here, argv: ["ls", "--json", name] });
  if (over()) return;
  const entries = status ? [] : JSON.parse(out);
  byId("entries-part").hidden = !entries.length;
  const items = entries.slice(0, SHOWN).map((entry) => entryItem(here, name, entry));
  if (entries.length > SHOWN) items.push(element("li", {}, `and ${entries.length - SHOWN} more; rumpbundle ls lists all`));
  byId("entries").replaceChildren(...items);
}

function entryItem(here, name, { volume, path, kind, size, target }) {
  const text = plain(`${volume}:${path}${target === undefined ? "" : ` -> ${target}`}`);
  if (kind !== "file") return element("li", {}, element("span", {}, text), element("span", {}, kind));
  const button = element("button", { type: "button", "aria-label": `Save ${text}` }, "Save");
  const item = element("li", {}, element("span", {}, text), element("span", {}, shownSize(size)), button);
  button.onclick = async () => {
    button.disabled = true;
    const argv = ["cat", name, `${volume}:${path}`];
    const saving = ask("save", { ...here, argv, name: "file" });
    const { status, err, files } = await saving.finally(() => (button.disabled = false));
    if (status) return button.replaceWith(element("span", { class: "bad" }, sorted(err).errors));
    const link = saved({ ...files[0], name: path.split("/").pop() || "file" }, "look");
    item.replaceWith(link);
    link.querySelector("a").click();
  };
  return item;
}
