"""A headless Chromium that tests look at pages with, spoken to over its own DevTools socket."""

import base64
import itertools
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--remote-debugging-port=0"
)


class Page:
    """One page of the browser."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.complaints: list[str] = []
        """What the page put on the console as a warning or an error."""
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")

    def open(
        self, path: Path, *, width: int = 1200, dark: bool = False, media: str = "screen"
    ) -> None:
        """Load a file, at a width in CSS pixels, in a colour scheme, on the screen or in print."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self._call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self._call("Page.navigate", url=path.as_uri())
        deadline = time.monotonic() + 30
        while self.ask("document.readyState + location.protocol") != "completefile:":
            assert time.monotonic() < deadline, "the page did not load"
            time.sleep(0.05)

    def visit(self, address: str, until: str) -> None:
        """Go to a server's page, and wait until a JavaScript expression is true of it."""
        self._call("Page.navigate", url=address)
        deadline = time.monotonic() + 60
        while not self.ask(until):
            assert time.monotonic() < deadline, self.ask("location.href")
            time.sleep(0.2)

    def ask(self, expression: str) -> Any:
        """Value of a JavaScript expression on the page."""
        result = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def press(self, key: str, code: int | None = None) -> None:
        """Press and let go a key, by its DOM name; `code` is that of a key without a character."""
        text = {} if len(key) > 1 else {"text": key}
        codes = {} if code is None else {"windowsVirtualKeyCode": code, "code": key}
        for kind in ("keyDown", "keyUp"):
            self._call("Input.dispatchKeyEvent", type=kind, key=key, **text, **codes)

    def type(self, text: str) -> None:
        """Put text where the cursor is."""
        self._call("Input.insertText", text=text)

    def click(self, selector: str) -> None:
        """Click the middle of an element, as a mouse would."""
        place = self.ask(
            f"(() => {{const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center'}); const r = e.getBoundingClientRect();"
            "return [r.x + r.width / 2, r.y + r.height / 2]})()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self._call(
                "Input.dispatchMouseEvent",
                type=kind,
                x=place[0],
                y=place[1],
                button="left",
                clickCount=1,
            )

    def keep_downloads(self, folder: Path) -> None:
        """Save what pages offer for download in a folder."""
        self._call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))

    def screenshot(self) -> bytes:
        """PNG of the whole page."""
        shot = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        return base64.b64decode(shot["data"])

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=30))
            self._listen(message)
            if message.get("id") == number:
                assert "error" not in message, message
                return dict(message["result"])

    def _listen(self, message: dict[str, Any]) -> None:
        told, method = message.get("params", {}), message.get("method")
        if method == "Log.entryAdded" and told["entry"]["level"] in ("warning", "error"):
            self.complaints.append(told["entry"]["text"])
        if method == "Runtime.exceptionThrown":
            self.complaints.append(told["exceptionDetails"]["text"])
        if method == "Runtime.consoleAPICalled" and told["type"] in ("warning", "error"):
            self.complaints.append(str(told["args"]))


@contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """A page of a fresh browser; the test is skipped where there is none."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("no chromium on this machine; .ci/run installs Debian's")
    process = subprocess.Popen(
        [program, *FLAGS.split(), f"--user-data-dir={folder}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        told = folder / "DevToolsActivePort"
        deadline = time.monotonic() + 60
        while not (told.is_file() and told.read_text().strip()):
            assert process.poll() is None, "chromium ended before it could be spoken to"
            assert time.monotonic() < deadline, "chromium did not start"
            time.sleep(0.05)
        port = told.read_text().split()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=30) as answer:
            pages = [entry for entry in json.load(answer) if entry["type"] == "page"]
        with connect(pages[0]["webSocketDebuggerUrl"], max_size=None) as socket:
            yield Page(socket)
    finally:
        process.terminate()
        process.wait(timeout=30)
