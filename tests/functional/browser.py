"""Debian's Chromium without a screen, driven by the DevTools protocol over a pipe."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from base64 import b64decode
from pathlib import Path
from types import TracebackType
from typing import Any

from .machine import path_of

_PATIENCE = 30.0  # seconds for one answer
_OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
)


class BrowserError(Exception):
    """The browser refused a command, or a script failed."""


class Browser:
    """A browser with one page.

    Args:
        home: where its profile is made.

    Attributes:
        complaints: errors in its console: of scripts, of the network, of the security policy.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._number = 0
        self._session = ""
        self._buffer = b""
        self.complaints: list[str] = []

    def __enter__(self) -> Browser:
        reading, its_output = os.pipe()
        its_input, writing = os.pipe()
        # The protocol is spoken on the descriptors 3 and 4.
        script = f'exec "$@" 3<&{its_input} 4>&{its_output} </dev/null >/dev/null 2>&1'
        self._process = subprocess.Popen(
            [
                *(path_of("bash"), "-c", script, "bash", path_of("chromium")),
                *_OPTIONS,
                f"--user-data-dir={self._home / 'profile'}",
            ],
            pass_fds=(its_input, its_output),
            start_new_session=True,
        )
        os.close(its_input)
        os.close(its_output)
        self._reading, self._writing = reading, writing
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._reading)
        os.close(self._writing)

    def call(self, method: str, **parameters: Any) -> Any:
        """Send a command, and return its result."""
        self._number += 1
        command: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            command["sessionId"] = self._session
        os.write(self._writing, json.dumps(command).encode() + b"\0")
        deadline = time.monotonic() + _PATIENCE
        while True:
            answer = self._next(deadline)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error']}")
                return answer["result"]
            self._heard(answer)

    def _next(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._reading], [], [], left)[0]:
                raise BrowserError("the browser has not answered in time")
            piece = os.read(self._reading, 1 << 20)
            if not piece:
                raise BrowserError("the browser has ended")
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\0")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _heard(self, event: dict[str, Any]) -> None:
        parameters = event.get("params", {})
        if event.get("method") == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.complaints.append(
                f"{parameters['entry']['text']} {parameters['entry'].get('url')}"
            )
        elif event.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(parameters["exceptionDetails"])[:500])

    def do(self, script: str) -> Any:
        """Run a script in the page, wait for its promise, and return its value as JSON has it."""
        result = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in result:
            raise BrowserError(json.dumps(result["exceptionDetails"])[:1000])
        return result["result"].get("value")

    def open(self, url: str) -> None:
        """Go to an address, and wait until its page and its script are there."""
        self.call("Page.navigate", url=url)
        self.wait(f"location.href === {json.dumps(url)}")

    def wait(self, condition: str, seconds: float = 10.0) -> float:
        """Wait until a condition of the page holds; return the seconds that it took."""
        began = time.monotonic()
        whole = f"document.readyState === 'complete' && !!({condition})"
        while True:
            with contextlib.suppress(BrowserError):  # one page goes, the next comes
                if self.do(whole):
                    return time.monotonic() - began
            if time.monotonic() - began > seconds:
                raise AssertionError(f"the page has not come to {condition}: {self.text()[:2000]}")
            select.select([self._reading], [], [], 0.05)

    def text(self) -> str:
        """Return what the page shows."""
        shown: str = self.do("document.body.innerText")
        return shown

    def click(self, selector: str, text: str = "") -> None:
        """Click the first element of a selector whose text begins so."""
        clicked = self.do(
            f"(() => {{ const found = [...document.querySelectorAll({json.dumps(selector)})]"
            f".find((each) => each.textContent.trim().startsWith({json.dumps(text)}));"
            " found?.click(); return !!found })()"
        )
        if not clicked:
            raise AssertionError(f"found no {selector} with {text!r}: {self.text()[:2000]}")

    def press(self, key: str, code: int) -> None:
        """Press a key."""
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=code,
                **(text if kind == "keyDown" else {}),
            )

    def shape(self, width: int, height: int = 900, *, dark: bool = False) -> None:
        """Give the window a width and a color scheme."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, path: Path) -> None:
        """Write a picture of the whole page."""
        taken = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(b64decode(taken["data"]))
