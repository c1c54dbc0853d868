// The worker in which rumpbundle runs, as promises.

const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module", name: "rumpbundle" });
const waiting = new Map();
let last = 0;
let listener = () => {};

worker.onmessage = ({ data }) => {
  if (data.line !== undefined) return listener(data.line);
  const { resolve, reject } = waiting.get(data.id);
  waiting.delete(data.id);
  if (data.error !== undefined) reject(new Error(data.error));
  else resolve(data.result);
};
worker.onerror = (event) => {
  for (const { reject } of waiting.values()) reject(new Error(event.message || "the worker did not start"));
  waiting.clear();
};

/** Asks the worker for `call`; see the end of worker.js. */
export function ask(call, argument = {}) {
  return new Promise((resolve, reject) => {
    waiting.set(++last, { resolve, reject });
    worker.postMessage({ id: last, call, argument });
  });
}

/** Lets `listen` hear what the command line says on standard error, line by line. */
export function onLine(listen) {
  listener = listen;
}
