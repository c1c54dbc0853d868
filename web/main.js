// The page: the form, what it makes, and what it finds in images.

import { boot, tooWide } from "./boot.js";
import { byId, element, plain, shellLine, shownSize, sorted } from "./dom.js";
import { onFiles } from "./drop.js";
import { ask } from "./python.js";
import { address, chosen, recipe, restore, tick, tickedFormats } from "./recipe.js";
import { look } from "./look.js";
import { forget, saved } from "./save.js";

const CHECK_AFTER = 150;

let warned = "";
let made = null; // the ISO of the last bundle, as long as nothing of its recipe was changed
let changes = 0; // of the recipe
let turn = 0; // of the kernels and bundles: an answer to what nobody wants any more is not shown
let running = false;

const show = (id, text) => (byId(id).textContent = text);
const noDirectory = (id) => (name) => complain(`error: ${plain(name)}: is a directory\nhint: drop the file itself`, id);

/** Shows what is wrong where one looks: in the field of the input `id`, else below the buttons. */
function complain(text, id = "") {
  const error = byId("error");
  if (id) byId(id).closest(".field").append(error);
  else byId("notes").before(error);
  error.textContent = text;
}

async function start() {
  const { version, formats } = await ask("start");
  show("version", version);
  formats.forEach(addFormat);
  tick();
  show("status", "");
  update();
  document.body.dataset.ready = "true";
  checkConfig();
}

function addFormat({ name, summary }) {
  const id = `format-${name}`;
  const box = element("input", { type: "checkbox", id, "aria-describedby": `${id}-is` });
  box.addEventListener("change", update);
  byId("formats").append(
    element("div", { class: "format", title: summary }, box, element("label", { for: id }, name),
            element("p", { id: `${id}-is` }, summary)),
  );
}

function update() {
  changes++;
  made = null;
  byId("link").href = address();
  enable();
}

function enable() {
  const ready = chosen.kernel.length > 0 && !running;
  byId("bundle").disabled = !ready || !tickedFormats().length;
  byId("boot").disabled = !ready;
}

function busy(what) {
  show("status", what);
  document.body.toggleAttribute("aria-busy", Boolean(what));
}

// -- what goes in ------------------------------------------------------------------------------------------

onFiles("kernel", async (files) => {
  chosen.kernel = files.slice(0, 1).map(({ data }) => data);
  warned = "";
  turn++;
  running = false;
  update();
  clear();
  busy("");
  show("kernel-facts", "");
  if (!files.length) return;
  const [kernel] = chosen.kernel;
  const { argv, files: given } = recipe(["iso"]);
  const name = argv.at(-1);
  const here = { directory: "kernel", files: given.slice(0, 1) };
  const { status, out, err } = await ask("run", { ...here, argv: ["inspect", "--json", name] });
  if (chosen.kernel[0] !== kernel) return;
  if (status !== 0) return complain(sorted(err).errors, "kernel");
  const found = JSON.parse(out);
  if (found.kind !== "kernel") {
    const refusal = await ask("run", { ...here, argv: ["build", "--formats=iso", "--output=/out", "--dry-run", name] });
    if (chosen.kernel[0] === kernel) complain(sorted(refusal.err).errors, "kernel");
    return;
  }
  const boots = Object.entries(found.boot).filter(([, by]) => by).map(([firmware, by]) => `${firmware.toUpperCase()} by ${by}`);
  const facts = [plain(kernel.name), shownSize(kernel.size), found.executable, found.family, boots.length ? `boots under ${boots.join(", ")}` : found.refusal];
  warned = tooWide({ ...found, name: plain(kernel.name) });
  show("kernel-facts", `${facts.join(" · ")}\n${warned}`.trim());
}, noDirectory("kernel"));

onFiles("modules", (files) => {
  chosen.modules = files.map(({ data }) => data);
  byId("module-list").replaceChildren(...chosen.modules.map((file) => element("li", {}, `${plain(file.name)}, ${shownSize(file.size)}`)));
  update();
}, noDirectory("modules"));

onFiles("data", (files) => {
  const names = new Set();
  const twice = files.map(({ name }) => name).find((name) => names.size === names.add(name).size);
  if (twice !== undefined) {
    files = [];
    complain(`error: ${plain(twice)}: two files have this name\nhint: a browser knows names in UTF-8 alone; rename one`, "data");
  }
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
  complain("");
  show("notes", "");
}

/** Makes the formats, and returns the files; an error is shown, and nothing is given. Nor is what nobody wants any more. */
async function build(formats) {
  const mine = ++turn;
  const over = () => mine !== turn;
  clear();
  busy("Bundling …");
  running = true;
  enable();
  try {
    const { argv, files } = recipe(formats);
    const argument = { directory: "bundle", files, argv: ["build", "--output=/out", ...argv] };
    const answer = await ask("make", argument, (line) => over() || busy(line));
    if (over()) return [];
    const { errors, notes } = sorted(answer.err);
    complain(errors || (answer.status ? "error: it could not be made" : ""));
    show("notes", notes);
    byId("results").dataset.seconds = answer.seconds;
    show("command", shellLine(["rumpbundle", "build", ...argv]));
    // A field tells of a choice only if it is another one.
    if (answer.gone.length) for (const id of ["kernel", "modules", "data"]) byId(id).value = "";
    return answer.files;
  } catch (error) {
    if (!over()) complain(`error: the page failed: ${error.message}`);
    return [];
  } finally {
    if (!over()) {
      running = false;
      enable();
      busy("");
    }
  }
}

const isoOf = (files) => files.find(({ name }) => name.endsWith(".iso")) ?? null;

byId("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const before = changes;
  const files = await build(tickedFormats());
  if (!files.length) return;
  byId("results").replaceChildren(...files.map((file) => saved(file, "bundle")));
  byId("same").hidden = false;
  if (before === changes) made = isoOf(files);
});

byId("boot").addEventListener("click", async () => {
  if (warned) {
    complain(`error: ${warned}\nhint: press Boot again to try all the same`);
    warned = "";
    return;
  }
  const before = changes;
  const image = made ?? isoOf(await build(["iso"]));
  if (!image) return;
  if (before === changes) made = image;
  await boot(image.blob, true);
  byId("machine").scrollIntoView({ block: "nearest" });
});

// -- images ------------------------------------------------------------------------------------------------

onFiles("image", (files) => files.length && look(files[0]), (name) => show("look-error", `error: ${plain(name)}: is a directory\nhint: drop the file itself`));

addEventListener("unhandledrejection", ({ reason }) => complain(`error: the page failed: ${reason?.message ?? reason}`));
addEventListener("hashchange", () => {
  restore();
  tick();
  update();
  checkConfig();
});

restore(); // now, and not when Python has come: what is typed meanwhile stays
start().catch((error) => show("status", `This browser cannot run it: ${error.message}`));
if ("serviceWorker" in navigator) navigator.serviceWorker.register("sw.js").catch(() => {});
