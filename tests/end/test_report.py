"""The report of a run, opened from its file in a real browser."""

import html
import json
import math
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.runs import FIRST, add_event, add_losses, add_receipt, add_starts, make_job

ROOT = Path(__file__).parents[2]
HOSTILE = "eval <script>throw 1</script> \"q\" 'r' $HOME & \n<img src=http://example.invalid/x>"
PROBE = """
<script>
const found = {errors: [], tips: []};
addEventListener("error", (event) => found.errors.push(event.message));
addEventListener("load", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
  const point = (target) => {
    const box = target.getBoundingClientRect();
    const where = {clientX: box.left + box.width / 2, clientY: box.top + box.height / 2};
    target.dispatchEvent(new PointerEvent("pointermove", {bubbles: true, ...where}));
    found.tips.push(document.getElementById("tip").textContent);
  };
  point(document.querySelector(".canvas"));
  point(document.querySelector(".bar.is-failed"));
  const root = document.documentElement;
  found.page = [root.scrollWidth, innerWidth];
  found.wide = [...document.querySelectorAll("body *")].filter((element) =>
    !element.closest(".scroll, svg, .unseen, #tip") &&
    element.getBoundingClientRect().right > innerWidth + 0.5).map((element) => element.outerHTML);
  found.fetched = performance.getEntriesByType("resource").map((entry) => entry.name);
  found.drawn = document.querySelectorAll(".plan a.job").length;
  found.listed = document.querySelectorAll("#jobs > details").length;
  found.curve = document.querySelector("path.train").getAttribute("d").length;
  parent.postMessage(JSON.stringify(found), "*");
});
</script>
"""
FRAME = """<!doctype html><script>
addEventListener("message", (event) => { document.body.dataset.found = event.data; });
</script><body><iframe src="report-probed.html" style="width:%dpx;height:900px;border:0"></iframe>
"""
"""A browser's window cannot be as narrow as a phone, a frame can."""


@pytest.fixture(scope="module")
def browser() -> str:
    """Debian's chromium; installed where it is missing and may be."""
    found = filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
    if browser := next(found, None):
        return browser
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        pytest.skip("no chromium, and no right to install Debian's")
    print("\nno chromium: apt-get install chromium", file=sys.stderr, flush=True)
    update = ["apt-get", "update", "-qq"]
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium"]
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (update, install):  # of the two the second tells: one list of many may fail
        done = subprocess.run(command, capture_output=True, text=True, env=quiet, check=False)
    if done.returncode != 0:
        pytest.skip(f"no chromium: {' '.join(install)}: {done.stderr.strip()[-300:]}")
    return "/usr/bin/chromium"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run of many fates: restarts, a failure, a bad node, 120 nodes, odd names."""
    run = tmp_path_factory.mktemp("runs") / "a run & <its> 'name'"
    nodes = [f"gpu{number:03d}" for number in range(120)]
    text = make_job(run, "text")
    add_starts(text, (0, None))
    add_receipt(text, 90)
    train = make_job(run, "train", after=["text"], resources={"nodes": 120, "gpus": 8})
    add_starts(train, (100, 500), (520, 900), (930, None), slurm_id="7")
    add_losses(train, [math.log(4096) / (1 + step / 800) + 2 for step in range(3000)], every=100)
    for began, reached in ((101, 0), (521, 1000), (931, 2200)):
        add_event(train, began, "start", nodes=nodes, reached=reached, restart=0)
        add_event(train, began + 20, "preflight", bad={}, seconds=18)
    add_event(train, 499, "stopped", reason="time limit; saved in time")
    add_event(train, 899, "failed", cause="Xid 79: fell off the bus", rank=3, node="gpu003",
              decision="exclude", why="the node is at fault")  # fmt: skip
    add_event(train, 900, "again", how="requeue", exclude=["gpu003"])
    add_receipt(train, 1900, numbers={"loss": 2.1, "validation_loss": 2.3}, energy_joules=7.2e6)
    odd = make_job(run, HOSTILE.replace("/", "∕"), after=["train", "text"], text="x" * 3000)
    add_starts(odd, (2000, 2100))
    add_event(odd, 2050, "failed", cause="y" * 500, rank=0, node="n" * 90, decision="stop", why="z")
    odd.outcome.write_text('{"status": 1, "guilty": 0, "signal": ""}')
    os.utime(odd.outcome, (FIRST + 2100, FIRST + 2100))
    odd.postmortem.write_text(f"# {HOSTILE}\n" + "w" * 400)
    for number in range(9):
        make_job(run, f"after-{number}-{'long-name-' * number}", after=["train"])
    path = run.parent / "report.html"
    command = [sys.executable, "-m", "megatron_jobs.cli", "report", str(run), "-o", str(path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return path


def open_in(browser: str, page: Path, width: int, *words: str) -> subprocess.CompletedProcess[str]:
    """Open a page in a window of its own, without a network."""
    command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += ["--disable-background-networking", "--proxy-server=127.0.0.1:9", "--no-first-run"]
    command += [f"--user-data-dir={page.parent}/profile", f"--window-size={width},900"]
    command += ["--enable-logging=stderr", *words, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)


@pytest.mark.parametrize("width", [390, 1280])
def test_it_opens_without_a_network_and_nothing_sticks_out(
    browser: str, report: Path, width: int
) -> None:
    probed = report.read_text().replace("<style>", f"{PROBE}<style>", 1)
    report.with_name("report-probed.html").write_text(probed)
    page = report.with_name(f"frame-{width}.html")
    page.write_text(FRAME % width)
    done = open_in(browser, page, 1400, "--virtual-time-budget=3000", "--dump-dom")
    found = found_in(done.stdout)
    assert found["errors"] == []
    assert not [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert found["page"] == [width, width]
    assert found["wide"] == []
    assert found["fetched"] == []
    assert (found["drawn"], found["listed"]) == (12, 12)
    assert found["curve"] > 10_000
    assert found["tips"][0].startswith("step 15")
    assert "training" in found["tips"][0]
    assert "start 2" in found["tips"][1]
    assert "Xid 79" in found["tips"][1]


def found_in(dom: str) -> dict[str, Any]:
    """What the probe left in the page."""
    text = dom.partition('data-found="')[2].partition('"')[0]
    found: dict[str, Any] = json.loads(html.unescape(text))
    return found


def test_it_can_be_seen(browser: str, report: Path) -> None:
    picture = report.with_name("picture.png")
    open_in(browser, report, 1280, f"--screenshot={picture}")
    header = picture.read_bytes()[:24]
    assert struct.unpack(">II", header[16:24]) == (1280, 900)
    assert picture.stat().st_size > 30_000
