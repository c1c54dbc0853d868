// The worker in which rumpbundle runs, as promises.

const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module", name: "rumpbundle" });
const waiting = new Map();
let last = 0;
let failed = null;
let started = false;

worker.onmessage = ({ data }) => {
  started = true;
  const asked = waiting.get(data.id);
  if (!asked) return;
  const { resolve, reject, heard } = asked;
  if (data.line !== undefined) return heard(data.line);
  waiting.delete(data.id);
  if (data.error !== undefined) reject(new Error(data.error));
  else resolve(data.result);
};
worker.onerror = (event) => {
  const error = new Error(event.message || "the worker did not start");
  if (!started) failed = error; // it never will
  for (const { reject } of waiting.values()) reject(error);
  waiting.clear();
};

/** Asks the worker for `call`, see the end of worker.js; `heard(line)` is told what it says on standard error meanwhile. */
export function ask(call, argument = {}, heard = () => {}) {
  if (failed) return Promise.reject(failed);
  return new Promise((resolve, reject) => {
    waiting.set(++last, { resolve, reject, heard });
    worker.postMessage({ id: last, call, argument });
  });
}
