"""The report of a run, piece by piece; in a browser it is seen by tests/end/test_report.py."""

import errno
import html.parser
import itertools
import json
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from megatron_jobs.errors import UserError
from megatron_jobs.jobs import report
from megatron_jobs.jobs.report import write_report
from megatron_jobs.jobs.report.curve import POINTS, Curves, draw_curves, round_marks, thin
from megatron_jobs.jobs.report.graph import HEIGHT, lay_out
from megatron_jobs.jobs.report.nodes import held_against, natural
from megatron_jobs.jobs.report.page import render_report
from megatron_jobs.jobs.report.settings import own_settings
from megatron_jobs.jobs.report.story import Story, read_story
from megatron_jobs.jobs.starts import Start
from megatron_jobs.jobs.status import plan_status
from megatron_jobs.jobs.tree import job_depths
from megatron_jobs.page.elements import tag
from tests.runs import FIRST, add_event, add_losses, add_receipt, add_starts, make_job

HOSTILE = """a</script><script>alert('x')</script> "q" & $title\n${HOME}"""


class Seen(html.parser.HTMLParser):
    """What a browser would find: elements with their attributes, texts, scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        inside = self.elements and self.elements[-1][0] == "script" and self.cdata_elem
        (self.scripts if inside else self.texts).append(data)


@pytest.fixture(autouse=True)
def _no_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")


def stories(run: Path) -> list[Story]:
    return [read_story(run, record, FIRST + 1000) for record in plan_status(run)]


def test_a_report_that_cannot_be_written_is_the_users_to_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_job(tmp_path, "job")
    place = tmp_path / "job"
    words = f"--output: {place} is a folder; name a file: --output {place / 'report.html'}"
    with pytest.raises(UserError, match=f"^{re.escape(words)}$"):
        write_report(tmp_path, place)
    below = tmp_path / "job/config.yaml/x/report.html"
    with pytest.raises(UserError, match=f"^--output: {below} cannot be written: Not a directory;"):
        write_report(tmp_path, below)

    def refuse(path: Path, text: str) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(report, "write_text", refuse)
    words = f"--output: {tmp_path / 'report.html'} cannot be written: Read-only file system; name"
    with pytest.raises(UserError, match=f"^{re.escape(words)} another file$"):
        write_report(tmp_path)


def test_names_cannot_break_out(tmp_path: Path) -> None:
    name = HOSTILE.replace("/", "∕")
    folder = make_job(tmp_path, name, text=HOSTILE)
    add_starts(folder, (0, None))
    add_event(folder, 1, "start", nodes=[HOSTILE], reached=0)
    add_event(folder, 2, "failed", cause=HOSTILE, rank=0, node="n1", decision="stop", why=HOSTILE)
    folder.postmortem.write_text(HOSTILE)
    make_job(tmp_path, "next", after=[name])
    page = render_report(tmp_path, plan_status(tmp_path), now=FIRST + 9)
    seen = Seen(page)
    assert not any("alert" in script for script in seen.scripts)
    assert not any(key.startswith("on") for _, attributes in seen.elements for key in attributes)
    assert HOSTILE in seen.texts
    assert sum(repr(name) in text for text in seen.texts) >= 3
    assert [kind for kind, _ in seen.elements].count("script") == 1
    titles = [text for text in seen.texts if "report of a run" in text]
    assert titles == [f"{tmp_path.name}: report of a run"]


def test_the_numbers_of_a_curve_are_in_the_page() -> None:
    page = draw_curves(Curves([(1, 2.0), (2, None), (3, 1.5)], [(2, 1.0)], [2]))
    (data,) = Seen(page).scripts
    assert json.loads(data)["train"] == [[1, 2.0], [2, None], [3, 1.5]]


def test_texts_and_attributes_are_escaped() -> None:
    assert (
        tag("p", "<&>\"'", title="\"'<")
        == '<p title="&quot;&#x27;&lt;">&lt;&amp;&gt;&quot;&#x27;</p>'
    )


def test_the_same_run_gives_the_same_page(tmp_path: Path) -> None:
    folder = make_job(tmp_path / "run", "job")
    add_starts(folder, (0, 60), (70, None))
    add_receipt(folder, 100)
    add_losses(folder, [3.0, 2.0, 1.0])
    first = write_report(tmp_path / "run").read_text()
    second = write_report(tmp_path / "run", tmp_path / "other.html").read_text()
    assert first == second
    assert "2023-11-14 22:13:20 to 2023-11-14 22:15:00 UTC" in first


def test_thinning_keeps_what_is_highest_and_lowest() -> None:
    choose = random.Random(1)
    points = [(step, choose.random()) for step in range(200_000)]
    points[77_777] = (77_777, 9.0)
    points[123_456] = (123_456, -9.0)
    kept = thin(points)
    assert len(kept) <= POINTS
    assert set(kept) <= set(points)
    assert [step for step, _ in kept] == sorted({step for step, _ in kept})
    assert {points[0], points[-1], (77_777, 9.0), (123_456, -9.0)} <= set(kept)
    assert thin(points[:POINTS]) == points[:POINTS]
    gaps = [later[0] - earlier[0] for earlier, later in itertools.pairwise(kept)]
    assert max(gaps) <= 2 * 200_000 / (POINTS / 2) + 2


def test_a_million_steps_make_no_big_page(tmp_path: Path) -> None:
    folder = make_job(tmp_path, "job")
    add_starts(folder, (0, None))
    add_losses(folder, [8 / (1 + step / 1000) for step in range(50_000)])
    for second in range(2000):
        add_event(folder, second, "stopped", reason="r" * 1000)
    page = render_report(tmp_path, plan_status(tmp_path), now=FIRST + 9)
    assert len(page) < 400_000


def test_thousands_of_tasks_make_no_big_page(tmp_path: Path) -> None:
    """Two of them were put back in the queue; the others are no restarts."""
    make_job(tmp_path, "job", resources={"tasks": 5000})
    (record,) = plan_status(tmp_path)
    ids = [f"12_{task}" for task in range(5000)] + ["12_7", "12_8"]
    record["starts"] = [
        Start(slurm_id=slurm_id, state="COMPLETED", began=FIRST + i, ended=FIRST + i + 50,
              nodes=(f"n{i % 100}",)) for i, slurm_id in enumerate(ids)
    ]  # fmt: skip
    began = time.process_time()
    page = render_report(tmp_path, [record | {"state": "done"}], now=FIRST + 9999)
    assert time.process_time() - began < 5
    assert len(page) < 2_000_000
    assert "<dt>restarts</dt><dd>2</dd>" in page


def test_marks_are_round_few_and_inside() -> None:
    choose = random.Random(2)
    for _ in range(500):
        low = choose.uniform(-100, 100) * 10 ** choose.randrange(-4, 5)
        high = low + choose.uniform(0.01, 100) * 10 ** choose.randrange(-4, 5)
        marks = round_marks(low, high, 6)
        assert 1 <= len(marks) <= 7
        reach = (high - low) * 1e-6
        assert marks == [low] or all(low - reach <= mark <= high + reach for mark in marks)
    assert round_marks(4.1, 8.3, 5) == [5, 6, 7, 8]
    assert round_marks(3, 3, 5) == [3]


def plans() -> Iterator[dict[str, list[str]]]:
    for seed in range(40):
        choose = random.Random(seed)
        names = [f"j{i}" for i in range(choose.randrange(1, 40))]
        yield {
            n: choose.sample(names[:i], min(i, choose.randrange(4))) for i, n in enumerate(names)
        }


def test_jobs_stand_behind_those_they_wait_for_and_never_on_another() -> None:
    for after in plans():
        layout = lay_out(after)
        depths = job_depths(after)
        assert {place for place in layout.heights if "\0" not in place[1]} == {
            (depth, job) for job, depth in depths.items()
        }
        assert {(line[0][1], line[-1][1]) for line in layout.lines} == {
            (other, job) for job, others in after.items() for other in others
        }
        for line in layout.lines:
            assert [layer for layer, _ in line] == list(range(line[0][0], line[-1][0] + 1))
        for layer in range(layout.layers):
            here = sorted(
                h for p, h in layout.heights.items() if p[0] == layer and "\0" not in p[1]
            )
            assert all(b - a >= HEIGHT for a, b in itertools.pairwise(here))


def test_how_each_start_ended_without_slurm(tmp_path: Path) -> None:
    folder = make_job(tmp_path, "job")
    add_starts(folder, (0, 50), (60, 80), (100, None))
    add_event(folder, 1, "start", nodes=["n1", "n2"], reached=0)
    add_event(folder, 49, "stopped", reason="time limit")
    add_event(folder, 50, "again", how="requeue", exclude=[])
    add_event(folder, 61, "start", nodes=["n1", "n2"], reached=10)
    add_event(folder, 65, "preflight", bad={"n2": "no memory"}, seconds=4)
    add_event(folder, 79, "failed", cause="Xid 79", node="n1", decision="exclude", why="a bad GPU")
    add_event(folder, 80, "again", how="requeue", exclude=["n1"])
    add_event(folder, 101, "start", nodes=["n3", "n2"], reached=20)
    add_receipt(folder)
    (story,) = stories(tmp_path)
    assert [chapter.ending for chapter in story.chapters] == ["stopped", "failed", "done"]
    assert [chapter.why() for chapter in story.chapters] == [
        "stopped: time limit; goes on (requeue)",
        "unfit: n2 (no memory); on n1: Xid 79; exclude: a bad GPU; goes on (requeue), without n1",
        "",
    ]
    assert held_against([story]) == {"n2": ["preflight: no memory"], "n1": ["Xid 79"]}


def test_nodes_in_the_order_people_count() -> None:
    names = ["n10", "n2", "m1", "n1", "r2c10", "r2c9"]
    assert sorted(names, key=natural) == ["m1", "n1", "n2", "n10", "r2c9", "r2c10"]


def test_only_settings_that_somebody_chose(tmp_path: Path) -> None:
    words = tmp_path / "maker/words"
    folder = make_job(tmp_path, "job", text="hi", count=1, reads=str(words), resources={"ranks": 3})
    expected = [("text", "hi"), ("reads", "@maker/words"), ("resources.ranks", "3")]
    assert own_settings(folder) == expected
    other = make_job(tmp_path, "other", stage="somebody.elses", depth={"a": 1, "b": [2, 3]})
    assert own_settings(other) == [("depth.a", "1"), ("depth.b", "[2, 3]")]
