// The page: the form, what it makes, and what it finds in images.

import { boot, tooWide } from "./boot.js";
import { byId, element, shellLine, shownSize, sorted } from "./dom.js";
import { onFiles } from "./drop.js";
import { ask, onLine } from "./python.js";
import { address, chosen, recipe, restore, tickedFormats } from "./recipe.js";
import { look } from "./look.js";
import { forget, saved } from "./save.js";

const CHECK_AFTER = 150;

let warned = "";
let made = null; // the ISO of the last bundle, with the recipe it was made of

const show = (id, text) => (byId(id).textContent = text);

async function start() {
  const { version, formats } = await ask("start");
  show("version", version);
  // What can be made here comes first.
  for (const format of formats.sort((a, b) => a.missing.length - b.missing.length)) addFormat(format);
  restore();
  show("status", "");
  update();
  document.body.dataset.ready = "true";
}

function addFormat({ name, summary, missing }) {
  const here = !missing.length;
  const id = `format-${name}`;
  const box = element("input", { type: "checkbox", id, disabled: !here, "aria-describedby": `${id}-is` });
  box.addEventListener("change", update);
  const why = here ? [summary] : [`needs ${missing.join(", ")}: `, element("code", {}, `rumpbundle build -f ${name} KERNEL`)];
  byId("formats").append(
    element("div", { class: here ? "format" : "format off", title: summary }, box, element("label", { for: id }, name),
            element("p", { id: `${id}-is` }, ...why)),
  );
}

function update() {
  const ready = chosen.kernel.length > 0;
  byId("bundle").disabled = !ready || !tickedFormats().length;
  byId("boot").disabled = !ready;
  byId("link").href = address();
  made = null;
}

function busy(what) {
  show("status", what);
  document.body.toggleAttribute("aria-busy", Boolean(what));
}

// -- what goes in ------------------------------------------------------------------------------------------

onFiles("kernel", async (files) => {
  chosen.kernel = files.slice(0, 1).map(({ data }) => data);
  warned = "";
  update();
  clear();
  show("kernel-facts", "");
  if (!files.length) return;
  const [kernel] = chosen.kernel;
  const { argv, files: given } = recipe(["iso"]);
  const name = argv.at(-1);
  const { status, out, err } = await ask("run", { directory: "kernel", files: given.slice(0, 1), argv: ["inspect", "--json", name] });
  if (chosen.kernel[0] !== kernel) return;
  if (status !== 0) return show("error", sorted(err).errors);
  const found = JSON.parse(out);
  if (found.kind !== "kernel") return;
  const boots = Object.entries(found.boot).filter(([, by]) => by).map(([firmware, by]) => `${firmware.toUpperCase()} by ${by}`);
  const facts = [kernel.name, shownSize(kernel.size), found.executable, found.family, boots.length ? `boots under ${boots.join(", ")}` : found.refusal];
  show("kernel-facts", `${facts.join(" · ")}\n${tooWide(found)}`.trim());
  warned = tooWide(found);
});

onFiles("modules", (files) => {
  chosen.modules = files.map(({ data }) => data);
  byId("module-list").replaceChildren(...chosen.modules.map((file) => element("li", {}, `${file.name}, ${shownSize(file.size)}`)));
  update();
});

onFiles("data", (files) => {
  chosen.data = files;
  const size = files.reduce((sum, { data }) => sum + data.size, 0);
  show("data-facts", files.length ? `${files.length} files, ${shownSize(size)}` : "");
  update();
});

let timer = 0;
byId("config").addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(checkConfig, CHECK_AFTER);
});

async function checkConfig() {
  const text = byId("config").value;
  const tell = (said, wrong) => {
    byId("config-state").textContent = said;
    byId("config-state").classList.toggle("bad", wrong);
    byId("config").setAttribute("aria-invalid", String(wrong));
  };
  if (!text.trim()) return tell("", false);
  const files = [{ name: "cfg.json", data: new Blob([text]) }];
  const { status, err } = await ask("run", { directory: "config", files, argv: ["config", "cfg.json"] });
  if (byId("config").value !== text) return;
  tell(status ? sorted(err).errors : "This configuration can be read.", status !== 0);
}

byId("form").addEventListener("input", update);

// -- what comes out ----------------------------------------------------------------------------------------

function clear() {
  forget("bundle");
  byId("results").replaceChildren();
  byId("same").hidden = true;
  show("error", "");
  show("notes", "");
}

/** Makes the formats, and returns the files; an error is shown, and nothing is given. */
async function build(formats) {
  clear();
  busy("Bundling …");
  byId("bundle").disabled = byId("boot").disabled = true;
  onLine((line) => busy(line));
  const { argv, files } = recipe(formats);
  try {
    const answer = await ask("make", { directory: "bundle", files, argv: ["build", "--output=/out", ...argv] });
    const { errors, notes } = sorted(answer.err);
    show("error", errors || (answer.status ? "error: it could not be made" : ""));
    show("notes", notes);
    byId("results").dataset.seconds = answer.seconds;
    show("command", shellLine(["rumpbundle", "build", ...argv]));
    return answer.files;
  } catch (error) {
    show("error", `error: the page failed: ${error.message}`);
    return [];
  } finally {
    onLine(() => {});
    update();
    busy("");
  }
}

byId("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const files = await build(tickedFormats());
  byId("results").replaceChildren(...files.map((file) => saved(file, "bundle")));
  byId("same").hidden = !files.length;
  made = files.find(({ name }) => name.endsWith(".iso")) ?? null;
});

byId("boot").addEventListener("click", async () => {
  if (warned) {
    show("error", `error: ${warned}\nhint: press Boot again to try all the same`);
    warned = "";
    return;
  }
  const image = made ?? (await build(["iso"])).find(({ name }) => name.endsWith(".iso"));
  if (!image) return;
  made = image;
  await boot(image.blob, true);
  byId("machine").scrollIntoView({ block: "nearest" });
});

// -- images ------------------------------------------------------------------------------------------------

onFiles("image", (files) => files.length && look(files[0]));

addEventListener("unhandledrejection", ({ reason }) => show("error", `error: the page failed: ${reason?.message ?? reason}`));
addEventListener("hashchange", () => {
  restore();
  update();
  checkConfig();
});

if (location.hash.includes("config=")) checkConfig();
start().catch((error) => show("status", `This browser cannot run it: ${error.message}`));
if ("serviceWorker" in navigator) navigator.serviceWorker.register("sw.js").catch(() => {});
