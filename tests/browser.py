"""A headless Chromium, driven by its own debugging protocol, and JupyterLab for it to open."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from base64 import b64decode
from contextlib import contextmanager

import websocket  # comes with JupyterLab's server

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextmanager
def process(command, **options):
    """A program that runs in the background until the block ends."""
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def wait_for(probe, what, seconds=60):
    """The first true value of `probe()`; it may raise OSError while things start."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if found := probe():
                return found
        except OSError:
            pass
        time.sleep(0.1)
    raise TimeoutError(f"{what}: not within {seconds} s")


@contextmanager
def jupyterlab(folder, settings):
    """JupyterLab on a folder, bound to localhost. Yields: its address, a function of the notebook's name."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    tracker = settings / "@jupyterlab" / "notebook-extension" / "tracker.jupyterlab-settings"
    tracker.parent.mkdir(parents=True)
    tracker.write_text('{"windowingMode": "none"}')  # cells out of sight stay in the page
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=localhost", f"--port={port}"]
    command += [f"--ServerApp.root_dir={folder}", "--LabApp.expose_app_in_browser=True"]
    command += [f"--LabApp.user_settings_dir={settings}", f"--LabApp.workspaces_dir={settings / 'workspaces'}"]
    environment = os.environ | {"JUPYTER_TOKEN": "reader", "OMP_NUM_THREADS": "1"}
    address = f"http://localhost:{port}"
    with process(command, env=environment):
        wait_for(lambda: urllib.request.urlopen(f"{address}/api?token=reader").status == 200, "JupyterLab")
        yield lambda name: f"{address}/lab/tree/{name}?token=reader"


class Page:
    """One tab: evaluate JavaScript, press keys, take a picture."""

    def __init__(self, address):
        self.socket = websocket.create_connection(address, timeout=300, suppress_origin=True)
        self.number = 0

    def send(self, method, **parameters):
        """Call a method of the protocol and return its result."""
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") == self.number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']['message']}")
                return message["result"]

    def evaluate(self, expression):
        """The value of a JavaScript expression; a promise is awaited."""
        found = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"].get("exception", {}).get("description", str(found)))
        return found["result"].get("value")

    def until(self, expression, seconds=60):
        """Wait until a JavaScript expression is true, and return its value."""
        return wait_for(lambda: self.evaluate(expression), expression, seconds)

    def press(self, key):
        """Press and release a key, such as "ArrowRight"."""
        code = {"ArrowRight": 39, "ArrowLeft": 37}[key]
        for kind in ("rawKeyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def screenshot(self, path):
        """Write what is seen as a PNG file."""
        path.write_bytes(b64decode(self.send("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def chromium(profile, size=(1280, 900)):
    """A headless Chromium. Yields: its `Page`."""
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
    command += [f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}", "about:blank"]
    with process(command):
        port = wait_for(lambda: (profile / "DevToolsActivePort").read_text().split("\n")[0], "Chromium")
        tabs = json.load(urllib.request.urlopen(f"http://localhost:{port}/json/list"))
        yield Page(next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page"))
