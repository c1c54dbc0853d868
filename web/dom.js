// The elements of the page. Text is only ever set as text: names and reports come from files nobody vouches for.

export const byId = (id) => document.getElementById(id);

/** Returns a new element with attributes and children; a string is a text node. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

export function shownSize(bytes) {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  for (; bytes >= 1024 && at < units.length - 1; at++) bytes /= 1024;
  return `${at && bytes < 10 ? bytes.toFixed(1) : Math.round(bytes)} ${units[at]}`;
}

/** Returns a name as it can be shown: what would act on the text around it (controls, directions) as its code. */
export const plain = (text) => text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, code);

function code(character) {
  const number = character.codePointAt(0);
  const [letter, digits] = number < 0x100 ? ["x", 2] : number < 0x10000 ? ["u", 4] : ["U", 8];
  return `\\${letter}${number.toString(16).padStart(digits, "0")}`;
}

/** Returns words as a line for a POSIX shell; as rumpbundle/host/shell.py writes it. */
export const shellLine = (words) => words.map(quoted).join(" ");

function quoted(word) {
  if (plain(word) === word) return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`;
  const octal = (byte) => `\\${byte.toString(8).padStart(3, "0")}`;
  const one = (byte) => (byte > 31 && byte < 127 && !`'%\\`.includes(String.fromCharCode(byte)) ? String.fromCharCode(byte) : octal(byte));
  const text = Array.from(new TextEncoder().encode(word), one).join("");
  return word.endsWith("\n") ? `$'${text}'` : `"$(printf '${text}')"`;
}

/** What the command line says on standard error, in parts: errors with their hints, and the rest. */
export function sorted(text) {
  const lines = text.split("\n").filter(Boolean);
  const wrong = (line) => /^(error|hint): /.test(line);
  return { errors: lines.filter(wrong).join("\n"), notes: lines.filter((line) => !wrong(line)).join("\n") };
}
