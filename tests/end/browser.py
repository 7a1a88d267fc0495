"""Pages opened from their files in a real browser, without a network."""

import html
import json
import subprocess
from pathlib import Path
from typing import Any

FRAME = """<!doctype html><script>
addEventListener("message", (event) => { document.body.dataset.found = event.data; });
</script><body><iframe src="report-probed.html" style="width:%dpx;height:900px;border:0"></iframe>
"""
"""A browser's window cannot be as narrow as a phone, a frame can."""


def open_in(browser: str, page: Path, width: int, *words: str) -> subprocess.CompletedProcess[str]:
    """Open a page in a window of its own, without a network."""
    command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += ["--disable-background-networking", "--proxy-server=127.0.0.1:9", "--no-first-run"]
    command += [f"--user-data-dir={page.parent}/profile", f"--window-size={width},900"]
    command += ["--enable-logging=stderr", *words, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)


def probe_page(browser: str, page: Path, probe: str, *, width: int) -> dict[str, Any]:
    """What a script that runs in a page of some width posts to the page around it.

    Raises: AssertionError when the browser's console has a word.
    """
    probed = page.read_text().replace("<style>", f"{probe}<style>", 1)
    page.with_name("report-probed.html").write_text(probed)
    frame = page.with_name(f"frame-{width}.html")
    frame.write_text(FRAME % width)
    done = open_in(browser, frame, 1400, "--virtual-time-budget=3000", "--dump-dom")
    assert not [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    found = found_in(done.stdout)
    assert found["errors"] == []
    return found


def found_in(dom: str) -> dict[str, Any]:
    """What the probe left in the page."""
    text = dom.partition('data-found="')[2].partition('"')[0]
    found: dict[str, Any] = json.loads(html.unescape(text))
    return found
