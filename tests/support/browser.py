"""The page in a real browser: built, served on loopback, driven by Debian's Chromium without a head.

::

    with browser(page_directory) as page:
        page.choose("kernel", path)
        page.click("bundle")
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from support.tools import require

ROOT = Path(__file__).parents[2]
SECONDS = 240
"""For the slowest single thing on a machine that does many at once."""
_SWITCHES = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-default-apps", "--no-default-browser-check",
    "--window-size=1100,1400",
)  # fmt: skip


class Page:
    """The page, and what a script does with it."""

    def __init__(self, driver: Any, address: str, downloads: Path) -> None:
        self.driver = driver
        self.address = address
        self.downloads = downloads

    def open(self, fragment: str = "") -> None:
        """Load the page anew and wait until it can work."""
        self.driver.get("about:blank")
        self.driver.get(f"{self.address}{fragment}")
        self.wait(lambda: self.js("return document.body.dataset.ready") == "true", "the page is not ready")

    def js(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def element(self, id: str) -> Any:
        return self.driver.find_element("id", id)

    def text(self, id: str) -> str:
        return str(self.js("return document.getElementById(arguments[0]).textContent", id))

    def wait(self, until: Callable[[], Any], complaint: str, seconds: float = SECONDS) -> Any:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := until():
                return found
            time.sleep(0.05)
        raise AssertionError(f"{complaint}; the page says {self.text('error')!r}, {self.text('status')!r}")

    def choose(self, id: str, *paths: Path) -> None:
        """Choose files in a file input."""
        self.element(id).send_keys("\n".join(str(path.resolve()) for path in paths))

    def type(self, id: str, text: str) -> None:
        """Put *text* into a field, as one paste."""
        self.js(
            "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
            "e.dispatchEvent(new Event('input', {bubbles: true}))",
            id,
            text,
        )

    def tick(self, *formats: str) -> None:
        """Tick exactly these formats."""
        self.js(
            "for (const box of document.querySelectorAll('#formats input')) {"
            "  const want = arguments[0].includes(box.id.slice(7));"
            "  if (box.checked !== want) box.click();"
            "}",
            list(formats),
        )

    def offered(self) -> list[str]:
        """Return the formats that can be ticked."""
        return self.js(
            "return [...document.querySelectorAll('#formats input:not(:disabled)')].map(box => box.id.slice(7))"
        )

    def click(self, id: str) -> None:
        self.js("document.getElementById(arguments[0]).click()", id)

    def bundle(self) -> list[dict[str, Any]]:
        """Press the button and return what came: each file's name, size, digest and address."""
        self.js(
            "document.getElementById('results').replaceChildren(); document.getElementById('error').textContent=''"
        )
        self.click("bundle")
        self.wait(lambda: self.results() or self.text("error"), "nothing was bundled")
        return self.results()

    def results(self) -> list[dict[str, Any]]:
        return self.js(
            "return [...document.querySelectorAll('#results a[download]')].map(a => ({name: a.textContent,"
            " size: Number(a.dataset.size), digest: a.dataset.digest, href: a.href}))"
        )

    def fetched_digest(self, href: str) -> str:
        """Return the SHA-256 of what a link saves, computed by the browser from its bytes."""
        return self.driver.execute_async_script(
            "const done = arguments[1];"
            "fetch(arguments[0]).then(r => r.arrayBuffer()).then(b => crypto.subtle.digest('SHA-256', b))"
            ".then(d => done([...new Uint8Array(d)].map(x => x.toString(16).padStart(2, '0')).join('')))"
            ".catch(e => done(String(e)))",
            href,
        )

    def requests(self) -> list[str]:
        """Return the address of every request since the last call, the workers' too."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [
            each["params"]["request"]["url"] for each in messages if each["method"] == "Network.requestWillBeSent"
        ]

    def screenshot(self, path: Path, *, width: int = 1100, dark: bool = False) -> None:
        """Save a picture of the whole page."""
        cdp = self.driver.execute_cdp_cmd
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        cdp("Emulation.setEmulatedMedia", {"features": [scheme]})
        height = self.js("return document.documentElement.scrollHeight")
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        cdp("Emulation.setDeviceMetricsOverride", metrics)
        metrics["height"] = self.js("return document.documentElement.scrollHeight")
        cdp("Emulation.setDeviceMetricsOverride", metrics)
        time.sleep(0.3)
        self.driver.save_screenshot(str(path))
        cdp("Emulation.clearDeviceMetricsOverride", {})


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def served(directory: Path, types: dict[str, str] | None = None) -> Iterator[str]:
    """Serve *directory* on loopback, below a path of its own, as a static host would; *types* are by suffix."""
    known = {**SimpleHTTPRequestHandler.extensions_map, **(types or {})}
    handler = type("Handler", (_Quiet,), {"extensions_map": known})
    with tempfile.TemporaryDirectory() as root:
        (Path(root) / "below").mkdir()
        (Path(root) / "below" / "page").symlink_to(directory.resolve())
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=root))
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/below/page/"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


@contextmanager
def browser(address: str) -> Iterator[Page]:
    """Start a browser of its own, for the page at *address*."""
    for program in ("chromium", "chromedriver"):
        require(program)
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        profile, downloads = Path(scratch) / "profile", Path(scratch) / "downloads"
        downloads.mkdir()
        options = webdriver.ChromeOptions()
        options.binary_location = str(shutil.which("chromium"))
        for switch in (*_SWITCHES, f"--user-data-dir={profile}"):
            options.add_argument(switch)
        options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        driver = webdriver.Chrome(options, Service(shutil.which("chromedriver"), log_output=os.devnull))
        try:
            driver.set_script_timeout(SECONDS)
            yield Page(driver, address, downloads)
        finally:
            driver.quit()


def built_page() -> Path:
    """Return the page, built once a test run; processes of the run take turns."""
    require("npm")
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    target = ROOT / ".cache" / "page-tested"
    stamp = target / "run"
    target.mkdir(parents=True, exist_ok=True)
    with (target / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text("ascii") != run:
            built = subprocess.run(
                [sys.executable, ROOT / "web" / "build.py", target / "page"], capture_output=True, text=True
            )
            assert built.returncode == 0, built.stdout + built.stderr
            stamp.write_text(run, "ascii")
    return target / "page"
