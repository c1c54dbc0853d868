// A PC in a worker: v86, its serial line and screen. Its address ends in ?use-scheduling-api, by which v86 yields.

import { V86 } from "./lib/v86/libv86.js";

const at = (path) => new URL(path, import.meta.url);
const MEMORY = 192 << 20;
const ROWS_TOLD_EVERY = 100;

let machine = null;
let screen = [];
let bytes = [];

// v86 draws into elements. A worker has none, so it gets what it touches of them; the canvas is a real one.
const inert = () => ({
  style: {},
  classList: { add() {} },
  childNodes: [],
  appendChild(child) {
    this.childNodes.push(child);
  },
  removeChild() {
    this.childNodes.shift();
  },
  replaceChild() {},
  getBoundingClientRect: () => ({ width: 0, height: 0 }),
});
globalThis.document = { createElement: inert };
globalThis.window = globalThis;
Object.assign(globalThis, { innerWidth: 0, devicePixelRatio: 1 });

function container(canvas) {
  canvas.style = {};
  canvas.getBoundingClientRect = () => ({ width: canvas.width, height: canvas.height });
  const found = { canvas: [canvas], div: [inert()] };
  return { getElementsByTagName: (name) => found[name], appendChild() {} };
}

function start({ image, cd, canvas }) {
  machine = new V86({
    wasm_path: at("lib/v86/v86.wasm").href,
    bios: { url: at("lib/bios/seabios.bin").href },
    vga_bios: { url: at("lib/bios/vgabios.bin").href },
    [cd ? "cdrom" : "hda"]: { buffer: image },
    boot_order: cd ? 0x123 : 0x312,
    memory_size: MEMORY,
    vga_memory_size: 8 << 20,
    acpi: true,
    disable_speaker: true,
    disable_keyboard: true,
    disable_mouse: true,
    autostart: true,
    screen: { container: container(canvas), use_graphical_text: true },
  });
  machine.add_listener("serial0-output-byte", (byte) => bytes.push(byte));
  machine.add_listener("screen-put-char", ([row, column, character]) => {
    (screen[row] ??= [])[column] = character;
  });
  machine.add_listener("screen-set-size", ([width, height, depth]) => {
    screen = [];
    postMessage({ size: [width, height, depth] });
  });
  machine.add_listener("emulator-started", () => postMessage({ started: true }));
  machine.add_listener("download-error", ({ file_name }) => postMessage({ failed: file_name }));
  const { cpu } = machine.v86 ?? {};
  let reboots = 0;
  if (cpu?.reboot_internal) {
    const reboot = cpu.reboot_internal;
    cpu.reboot_internal = function () {
      postMessage({ reset: ++reboots });
      return reboot.call(this);
    };
  }
  setInterval(tell, ROWS_TOLD_EVERY);
}

let shown = "";

function tell() {
  if (bytes.length) {
    postMessage({ serial: new Uint8Array(bytes) });
    bytes = [];
  }
  const rows = Array.from(screen, (row) => Array.from(row ?? [], (code) => String.fromCharCode(code > 31 && code < 127 ? code : 32)).join("").trimEnd());
  const text = rows.join("\n").trimEnd();
  if (text !== shown) postMessage({ text: (shown = text) });
}

onmessage = ({ data }) => {
  if (data.start) start(data.start);
  else if (data.serial !== undefined) machine?.serial0_send(data.serial);
  else if (data.codes) machine?.keyboard_send_scancodes(data.codes);
  else if (data.restart) machine?.restart();
};
