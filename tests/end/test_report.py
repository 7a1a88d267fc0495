"""The report of a run, opened from its file in a real browser."""

import math
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end.browser import open_in, probe_page
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


@pytest.mark.parametrize("width", [390, 1280])
def test_it_opens_without_a_network_and_nothing_sticks_out(
    browser: str, report: Path, width: int
) -> None:
    found = probe_page(browser, report, PROBE, width=width)
    assert found["page"] == [width, width]
    assert found["wide"] == []
    assert found["fetched"] == []
    assert (found["drawn"], found["listed"]) == (12, 12)
    assert found["curve"] > 10_000
    assert found["tips"][0].startswith("step 15")
    assert "training" in found["tips"][0]
    assert "start 2" in found["tips"][1]
    assert "Xid 79" in found["tips"][1]


def test_it_can_be_seen(browser: str, report: Path) -> None:
    picture = report.with_name("picture.png")
    open_in(browser, report, 1280, f"--screenshot={picture}")
    header = picture.read_bytes()[:24]
    assert struct.unpack(">II", header[16:24]) == (1280, 900)
    assert picture.stat().st_size > 30_000
