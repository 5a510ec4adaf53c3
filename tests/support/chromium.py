"""A real headless Chromium, told by its debugging protocol over a pipe what a visitor does; records what went wrong."""

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

KEYS = {"ArrowRight": 39, "ArrowLeft": 37, "ArrowDown": 40, "Tab": 9, "Enter": 13, "Escape": 27, "End": 35}
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-extensions",
    "--no-first-run",
    "--hide-scrollbars",
)
TIMEOUT = 120  # s; a busy machine starts a browser slowly


class Browser:
    """One window. ``requests`` are the addresses that a page asked for, ``complaints`` its errors and warnings."""

    def __init__(self, profile: Path) -> None:
        for_it, write = os.pipe()
        read, by_it = os.pipe()
        self._profile, self._send, self._receive = profile, write, read
        start = f'exec "$0" "$@" 3<&{for_it} 4>&{by_it}'  # the pipe's numbers are the protocol's, not ours
        command = ["bash", "-c", start, "chromium", *FLAGS, "--remote-debugging-pipe", f"--user-data-dir={profile}"]
        self._process = subprocess.Popen(command, pass_fds=(for_it, by_it), stderr=subprocess.DEVNULL)
        os.close(for_it)
        os.close(by_it)
        self._number, self._session = 0, ""
        self._left = b""
        self._loaded = False
        self.requests: list[str] = []
        self.complaints: list[str] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self._call(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(TIMEOUT)
        os.close(self._send)
        os.close(self._receive)
        shutil.rmtree(self._profile, ignore_errors=True)

    def open(self, page: Path | str, width: int = 1200, height: int = 900) -> None:
        """Load ``page``, a file or an address, in a window of that size in CSS pixels; a narrow one is a phone."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._call("Emulation.setDeviceMetricsOverride", **size)
        self._go("about:blank")  # else an address that differs in its fragment alone would load nothing
        self.requests.clear()
        self.complaints.clear()
        self._go(page if isinstance(page, str) else page.resolve().as_uri())
        # the event may have been that of the empty page before
        self.wait("location.href != 'about:blank' && document.readyState == 'complete'")

    def _go(self, address: str) -> None:
        self._loaded = False
        self._call("Page.navigate", url=address)
        while not self._loaded:
            self._take(self._message())

    def run(self, expression: str) -> Any:
        """The value of JavaScript, a promise's once it is kept."""
        done = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def click(self, selector: str, across: float = 0.5) -> None:
        """A mouse click on the element, scrolled into view; ``across``: where in its width."""
        box = f"const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView({{block: 'center'}});"
        place = "const b = e.getBoundingClientRect(); return [b.left, b.top, b.width, b.height]"
        left, top, width, height = self.run(f"(() => {{ {box} {place} }})()")
        at: dict[str, Any] = {"x": left + across * width, "y": top + height / 2, "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, **at)

    def drop(self, selector: str, file: Path) -> None:
        """A file dragged from the desktop onto the element."""
        box = f"document.querySelector({json.dumps(selector)}).getBoundingClientRect()"
        x, y = self.run(f"(() => {{ const b = {box}; return [b.left + b.width / 2, b.top + b.height / 2] }})()")
        data = {"items": [], "files": [str(file)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self._call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def save_to(self, folder: Path) -> None:
        """Put what is downloaded into ``folder`` without a question."""
        self._call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(folder))

    def wait(self, expression: str, seconds: float = TIMEOUT) -> None:
        """Until the JavaScript is true."""
        end = time.monotonic() + seconds
        while not self.run(expression):
            assert time.monotonic() < end, f"not so after {seconds} s: {expression}"
            time.sleep(0.05)

    def press(self, key: str, times: int = 1) -> None:
        """A key, given to whatever has the focus."""
        for _ in range(times):
            for kind in ("keyDown", "keyUp"):
                text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
                self._call(
                    "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=KEYS[key], **text
                )

    def screenshot(self, path: Path, whole: bool = False) -> None:
        """What is seen, or the whole page, as PNG."""
        shot = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=whole, **self._whole(whole))
        path.write_bytes(base64.b64decode(shot["data"]))

    def _whole(self, whole: bool) -> dict[str, Any]:
        if not whole:
            return {}
        size = self._call("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._send, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._message()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self._take(answer)

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self._left:
            ready, _, _ = select.select([self._receive], [], [], TIMEOUT)
            assert ready, f"Chromium has said nothing for {TIMEOUT} s"
            more = os.read(self._receive, 1 << 20)
            assert more, "Chromium has ended"
            self._left += more
        message, _, self._left = self._left.partition(b"\0")
        return json.loads(message)

    def _take(self, event: dict[str, Any]) -> None:
        """Remember what a page asked for and complained of."""
        method, told = event.get("method"), event.get("params", {})
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(told["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert"):
            self.complaints.append(json.dumps(told["args"]))
        elif method == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            self.complaints.append(told["entry"]["text"])


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser with a profile of its own below ``folder``, closed at the end."""
    with Browser(folder / "profile") as opened:
        yield opened
