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

/** Returns words as a line for a POSIX shell. */
export function shellLine(words) {
  return words.map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`)).join(" ");
}

/** What the command line says on standard error, in parts: errors with their hints, and the rest. */
export function sorted(text) {
  const lines = text.split("\n").filter(Boolean);
  const wrong = (line) => /^(error|hint): /.test(line);
  return { errors: lines.filter(wrong).join("\n"), notes: lines.filter((line) => !wrong(line)).join("\n") };
}
