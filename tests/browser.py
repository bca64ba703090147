"""Pages in a real browser: headless Chromium, driven by nothing but its command line."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
                None)  # fmt: skip
needs_browser = pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine")

_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--window-size=1280,900", "--enable-logging=stderr",
)  # fmt: skip
_ANSWER = "data-answer"


def ask(page: str, question: str, folder: Path) -> tuple[Any, list[str]]:
    """(what the JavaScript expression `question` is worth once a page is laid out, what the page
    had the browser's console say)."""
    script = f"document.body.setAttribute('{_ANSWER}', JSON.stringify({question}))"
    file = folder / "asked.html"
    file.write_text(page.replace("</body>", f"<script>{script}</script></body>"))
    command = (str(CHROMIUM), *_FLAGS, f"--user-data-dir={folder / 'profile'}", "--dump-dom",
               file.resolve().as_uri())  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(rf'{_ANSWER}="([^"]*)"', done.stdout)
    assert found, done.stderr[-2000:]
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(unescape(found[1])), said
