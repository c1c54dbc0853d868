"""Measures the page in Debian's Chromium: sizes, and the times to the first paint, to ready and to an image.

usage: PYTHONPATH=.:tests python web/measure.py     (after web/build.py)

It fails if an image takes more than :data:`LIMIT` times the command line's work. Of many tries the fastest counts, on
both sides: what else the machine does makes some of them slow.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from support import examples
from support.browser import ROOT, Page, browser, served

PAGE = ROOT / "build" / "page"
TRIES = 15
LIMIT = 3.0
COMMAND_LINE = """
import sys, tempfile, time, rumpbundle
from pathlib import Path
with tempfile.TemporaryDirectory() as place:
    for turn in range(2 * int(sys.argv[2])):
        start = time.perf_counter()
        rumpbundle.bundle(sys.argv[1], "iso", output=Path(place) / "a.iso", force=True, sync=turn % 2 == 0)
        print(time.perf_counter() - start)
"""


def main() -> int:
    files = [path for path in PAGE.rglob("*") if path.is_file()]
    own = [path for path in files if path.parent == PAGE and path.suffix in (".html", ".css", ".js")]
    say("own HTML, CSS and JavaScript", f"{sum(path.stat().st_size for path in own) / 1e3:.0f} kB")
    say("everything", f"{sum(path.stat().st_size for path in files) / 1e6:.1f} MB")
    hello = examples.hello()
    with served(PAGE) as address, browser(address) as page:
        for visit in ("first visit", "second visit"):
            begun = time.monotonic()
            page.open()
            say(f"{visit}: ready", f"{time.monotonic() - begun:.2f} s")
            say(f"{visit}: first paint", f"{first_paint(page):.2f} s")
            page.wait(lambda: page.js("return navigator.serviceWorker.ready.then(() => true)"), "no service worker")
        page.choose("kernel", hello)
        page.wait(lambda: page.text("kernel-facts"), "nothing is known of the kernel")
        page.tick("iso")
        times, waits = zip(*(bundled(page) for _ in range(TRIES)), strict=True)
        begun = time.monotonic()
        page.click("boot")
        page.wait(lambda: "Goodbye." in page.text("console"), "it does not boot")
        say("the example, from Boot to its last word", f"{time.monotonic() - begun:.2f} s")
    argv = [sys.executable, "-c", COMMAND_LINE, hello, str(TRIES)]
    ran = subprocess.run(argv, capture_output=True, text=True, check=True)
    seconds = [float(line) for line in ran.stdout.split()]
    plain, unsynced = min(seconds[::2]), min(seconds[1::2])
    say("an ISO in the page, the first, from the click to the file", f"{waits[0] * 1e3:.0f} ms")
    say("another, from the click to the file", f"{min(waits) * 1e3:.0f} ms: {min(waits) / plain:.1f} times the next")
    say("of that in its worker", f"{min(times) * 1e3:.0f} ms: {min(times) / plain:.1f} times the next")
    say("an ISO on the command line, without its start", f"{plain * 1e3:.0f} ms")
    say(
        "the same, without waiting for the disk",
        f"{unsynced * 1e3:.0f} ms: in the page {min(times) / unsynced:.1f} times",
    )
    if min(waits) <= LIMIT * plain:
        return 0
    print(f"error: an image takes more than {LIMIT:g} times the command line's work")
    return 1


def first_paint(page: Page) -> float:
    """Return the seconds from the navigation to the first paint."""
    script = "return performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
    return page.wait(lambda: page.js(script), "nothing was painted") / 1e3


CLICKED = """
const [done] = arguments;
const results = document.getElementById("results");
results.replaceChildren();
const begun = performance.now();
new MutationObserver((_, observer) => {
  if (!results.querySelector("a")) return;
  observer.disconnect();
  done([Number(results.dataset.seconds), (performance.now() - begun) / 1e3]);
}).observe(results, { childList: true });
document.getElementById("bundle").click();
"""


def bundled(page: Page) -> tuple[float, float]:
    """Bundle, and return the seconds the worker took by its own clock, and those from the click to the file."""
    in_worker, in_all = page.driver.execute_async_script(CLICKED)
    return in_worker, in_all


def say(what: str, value: str) -> None:
    print(f"{what:<60}{value}")


if __name__ == "__main__":
    if not Path(PAGE).exists():
        sys.exit(f"error: {PAGE}: no such directory\nhint: make page")
    sys.exit(main())
