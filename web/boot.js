// The machine on the page: the console in xterm.js, the screen beside it, and what is known before it starts.

import { byId, element } from "./dom.js";

const KEPT = 1 << 18;
const LAST_WORDS = 300;
const QUIET = "The machine was reset without a word from the kernel: this may be a 64-bit kernel, and v86 is a 32-bit machine.";
const CODES = [
  "Escape Digit1 Digit2 Digit3 Digit4 Digit5 Digit6 Digit7 Digit8 Digit9 Digit0 Minus Equal Backspace Tab",
  "KeyQ KeyW KeyE KeyR KeyT KeyY KeyU KeyI KeyO KeyP BracketLeft BracketRight Enter ControlLeft",
  "KeyA KeyS KeyD KeyF KeyG KeyH KeyJ KeyK KeyL Semicolon Quote Backquote ShiftLeft Backslash",
  "KeyZ KeyX KeyC KeyV KeyB KeyN KeyM Comma Period Slash ShiftRight NumpadMultiply AltLeft Space CapsLock",
  "F1 F2 F3 F4 F5 F6 F7 F8 F9 F10",
].join(" ").split(" ");
const EXTENDED = {
  ArrowUp: 0x48, ArrowLeft: 0x4b, ArrowRight: 0x4d, ArrowDown: 0x50, Home: 0x47, End: 0x4f, PageUp: 0x49,
  PageDown: 0x51, Insert: 0x52, Delete: 0x53, ControlRight: 0x1d, AltRight: 0x38,
};

let worker = null;
let terminal = null;
let loading = null;
let image = null;
let turn = 0;

/** Why a kernel, as `inspect --json` tells of it, will not run on a 32-bit PC; empty if nothing speaks against it. */
export function tooWide(kernel) {
  const wide = { "x86-64": "x86-64 code", aarch64: "code for another processor" }[kernel.machine];
  const file = { ELF64: "an ELF64 file", "PE32+": "a PE32+ file" }[kernel.executable];
  const family = { solo5: "Solo5", unikraft: "Unikraft" }[kernel.family];
  const why = file ?? wide ?? (family && `of the ${family} family, which enters 64-bit mode`);
  return why ? `v86 is a 32-bit machine, and ${kernel.name} is ${why}: it will most likely not start here.` : "";
}

/** Boots `blob`, as a CD or as a disk. */
export async function boot(blob, cd) {
  stop();
  const mine = turn;
  image = { blob, cd };
  byId("machine").hidden = false;
  state("starting …");
  loading ??= makeTerminal().catch((error) => {
    loading = null; // the next time it may come
    throw error;
  });
  let bytes;
  try {
    [bytes] = await Promise.all([blob.arrayBuffer(), loading]);
  } catch (error) {
    if (turn !== mine) return;
    stop();
    say(`It cannot be started: ${error.message}`);
    return;
  }
  if (turn !== mine) return; // it was stopped, or another started
  terminal.reset();
  byId("said").textContent = byId("screen-text").textContent = "";
  say("");
  const canvas = element("canvas", { width: 720, height: 400 });
  byId("screen").replaceChildren(canvas);
  worker = new Worker(new URL("machine.js?use-scheduling-api", import.meta.url), { type: "module", name: "machine" });
  worker.onmessage = hear;
  worker.onerror = (event) => {
    const failed = event.message || "it could not be loaded";
    // What the guest said last is still on its way.
    setTimeout(() => turn === mine && broke(failed), LAST_WORDS);
  };
  const offscreen = canvas.transferControlToOffscreen();
  worker.postMessage({ start: { image: bytes, cd, canvas: offscreen } }, [bytes, offscreen]);
}

export function stop() {
  turn++;
  worker?.terminate();
  worker = null;
  state("stopped");
}

const say = (text) => (byId("boot-note").textContent = text);

function state(text) {
  byId("machine-state").textContent = text;
  byId("stop").disabled = text === "stopped";
  byId("machine").dataset.state = text;
}

const decoder = new TextDecoder("utf-8");

function hear({ data }) {
  if (data.serial) {
    terminal.write(data.serial);
    const said = byId("said");
    const text = decoder.decode(data.serial, { stream: true }).replace(/\x1b(\[[0-9;?]*[ -/]*[@-~]|.)/g, "").replace(/\r/g, "");
    said.textContent = (said.textContent + text).slice(-KEPT);
  } else if (data.text !== undefined) byId("screen-text").textContent = data.text;
  else if (data.started) state("running");
  else if (data.failed) say(`The emulator cannot load ${data.failed}.`);
  else if (data.reset) reset(data.reset);
}

const spoke = () => byId("said").textContent.replace(/^[^\n]*(SeaBIOS|GRUB)[^\n]*$/gm, "").trim() !== "";

function reset(count) {
  if (!spoke()) say(QUIET);
  else if (count > 1) say("The machine was reset more than once: the kernel starts again and again.");
}

/** Tells of the end of the emulator itself. Where a real machine resets, after a triple fault, it gives up. */
function broke(failed) {
  stop();
  if (!/RuntimeError/.test(failed)) say(`The emulator stopped: ${failed}.`);
  else if (!spoke()) say(QUIET);
  else say("The machine was reset by a fault of the kernel, or it did what v86 cannot do: the emulator stopped.");
}

async function makeTerminal() {
  const { Terminal } = await import("./lib/xterm/xterm.js");
  terminal = new Terminal({ cols: 80, rows: 18, convertEol: true, fontSize: 13, scrollback: 5000, screenReaderMode: false,
                              theme: { background: "#14161a", foreground: "#e6e6e6" } });
  terminal.open(byId("terminal"));
  terminal.onData((text) => worker?.postMessage({ serial: text }));
}

function key(event, up) {
  if (event.code === "Tab" || event.metaKey) return;
  const plain = CODES.indexOf(event.code) + 1;
  const code = plain || EXTENDED[event.code];
  if (!code) return;
  event.preventDefault();
  worker?.postMessage({ codes: [...(plain ? [] : [0xe0]), code | (up ? 0x80 : 0)] });
}

byId("screen").addEventListener("keydown", (event) => key(event, false));
byId("screen").addEventListener("keyup", (event) => key(event, true));
byId("stop").addEventListener("click", stop);
byId("restart").addEventListener("click", () => image && boot(image.blob, image.cd));
