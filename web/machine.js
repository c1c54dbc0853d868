// A PC in a worker: v86, its serial line and screen. Its address ends in ?use-scheduling-api, by which v86 yields.

import { V86 } from "./lib/v86/libv86.js";

const at = (path) => new URL(path, import.meta.url);
const MEMORY = 192 << 20;
const TOLD_EVERY = 100;
const [WIDTH, HEIGHT] = [9, 16];
const ASCII = Array.from({ length: 95 }, (_, at) => String.fromCharCode(32 + at)).join("");
const CP437 =
  ` ☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼${ASCII}⌂` +
  "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀" +
  "αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■ ";

let machine = null;
let cells = [];
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
  machine.add_listener("emulator-loaded", () => {
    drawText(machine.screen_adapter, canvas);
    countResets(machine.v86.cpu);
  });
  machine.add_listener("screen-set-size", ([width, height, depth]) => {
    cells = [];
    postMessage({ size: [width, height, depth] });
  });
  machine.add_listener("emulator-started", () => postMessage({ started: true }));
  machine.add_listener("download-error", ({ file_name }) => postMessage({ failed: file_name }));
  setInterval(tell, TOLD_EVERY);
}

/** Draws text mode in the place of v86: its way of masking glyphs goes wrong where canvases are drawn without a GPU. */
function drawText(adapter, canvas) {
  const context = canvas.getContext("2d");
  const colour = (number) => `#${number.toString(16).padStart(6, "0")}`;
  let [cursorRow, cursorColumn] = [-1, -1];
  const { put_char, update_cursor } = adapter;
  adapter.put_char = (row, column, character, flags, background, foreground) => {
    put_char(row, column, character, flags, background, foreground);
    (cells[row] ??= [])[column] = { character, background, foreground, drawn: false };
  };
  adapter.update_cursor = (row, column) => {
    update_cursor(row, column);
    for (const cell of [cells[cursorRow]?.[cursorColumn], cells[row]?.[column]]) if (cell) cell.drawn = false;
    [cursorRow, cursorColumn] = [row, column];
  };
  adapter.update_graphical_text = () => {
    context.font = "15px monospace";
    context.textBaseline = "middle";
    context.textAlign = "center";
    cells.forEach((cellsOfRow, row) =>
      cellsOfRow.forEach((cell, column) => {
        if (cell.drawn) return;
        cell.drawn = true;
        const [x, y] = [column * WIDTH, row * HEIGHT];
        context.fillStyle = colour(cell.background);
        context.fillRect(x, y, WIDTH, HEIGHT);
        context.fillStyle = colour(cell.foreground);
        if (cell.character !== 32) context.fillText(CP437[cell.character], x + WIDTH / 2, y + HEIGHT / 2 + 1, WIDTH);
        if (row === cursorRow && column === cursorColumn) context.fillRect(x, y + HEIGHT - 3, WIDTH, 2);
      }),
    );
  };
}

/** Tells whenever the processor is reset. */
function countResets(cpu) {
  const { reboot_internal } = cpu;
  let count = 0;
  cpu.reboot_internal = function () {
    postMessage({ reset: ++count });
    return reboot_internal.call(this);
  };
}

let shown = "";

function tell() {
  if (bytes.length) {
    postMessage({ serial: new Uint8Array(bytes) });
    bytes = [];
  }
  const line = (row) => Array.from(row ?? [], (cell) => (cell && cell.character > 31 ? CP437[cell.character] : " ")).join("").trimEnd();
  const text = Array.from(cells, line).join("\n").trimEnd();
  if (text !== shown) postMessage({ text: (shown = text) });
}

onmessage = ({ data }) => {
  if (data.start) start(data.start);
  else if (data.serial !== undefined) machine?.serial0_send(data.serial);
  else if (data.codes) machine?.keyboard_send_scancodes(data.codes);
  else if (data.restart) machine?.restart();
};
