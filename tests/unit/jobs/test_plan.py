"""Plans are checked as a whole; jobs with receipts do not run again (stage: tests.stages.echo)."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from megatron_jobs.cli import main
from megatron_jobs.errors import ConfigError, UserError
from megatron_jobs.jobs.local import JobFailed, run_plan
from megatron_jobs.jobs.plan import Job, Plan, load_plan
from megatron_jobs.runtime.files import read_json
from megatron_jobs.runtime.heartbeat import node_folder

ROOT = Path(__file__).parents[3]
TWO = """
jobs:
  second:
    stage: tests.stages.echo
    reads: "@first/words"
    text: world
  first:
    stage: tests.stages.echo
    resources: {ranks: 2}
"""


@pytest.fixture(autouse=True)
def _tests_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def plan_of(tmp_path: Path, text: str, *words: str) -> Plan:
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    return load_plan(str(path), list(words), tmp_path / "a run")


def run(plan: Plan) -> list[tuple[str, str]]:
    """Run a plan; the (job, state) of those that ended."""
    seen: list[tuple[str, str]] = []

    def watch(job: Job, state: str, record: dict[str, Any] | None) -> None:
        if state != "running":
            seen.append((job.name, state))

    run_plan(plan, watch)
    return seen


def problems_of(tmp_path: Path, text: str, *words: str) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        plan_of(tmp_path, text, *words)
    return dict(caught.value.problems)


def test_jobs_run_in_the_order_of_their_needs_and_only_once(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, TWO)
    assert list(plan.jobs) == ["first", "second"]
    assert run(plan) == [("first", "done"), ("second", "done")]
    assert (plan.run / "second/words/0.txt").read_text() == "hello\nworld\n"
    assert run(plan_of(tmp_path, TWO)) == [("first", "skipped"), ("second", "skipped")]


def test_a_receipt_holds_what_was_read_and_written(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, TWO)
    run(plan)
    first, second = (read_json(job.folder.receipt) for job in plan.jobs.values())
    assert second["inputs"] == {"reads": first["outputs"]["words"]["sha256"]}
    assert first["outputs"]["words"]["bytes"] == 12
    assert first["numbers"] == {"ranks": 2, "nodes": 1}
    assert second["config"]["reads"] == str(plan.run / "first/words")
    assert {"torch", "python", "megatron-core"} <= set(first["versions"])
    assert first["seconds"] > 0
    assert first["slurm_job_ids"] == []


def test_only_what_changed_runs_again(tmp_path: Path) -> None:
    run(plan_of(tmp_path, TWO))
    assert run(plan_of(tmp_path, TWO, "second.text=moon")) == [
        ("first", "skipped"),
        ("second", "done"),
    ]
    again = plan_of(tmp_path, TWO, "second.text=moon", "first.text=bye")
    assert run(again) == [("first", "done"), ("second", "done")]
    assert (again.run / "second/words/0.txt").read_text() == "bye\nmoon\n"
    replaced = sorted(path.name.split("-")[0] for path in (again.run / ".replaced").iterdir())
    assert replaced == ["first", "second", "second"]


def test_a_job_whose_output_is_gone_runs_again(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, TWO)
    run(plan)
    (plan.run / "first/words/1.txt").unlink()
    assert run(plan) == [("first", "done"), ("second", "skipped")]


def test_every_fault_of_a_plan_at_once(tmp_path: Path) -> None:
    text = """
    jobs:
      a: {stage: tests.stages.echo, txt: x, reads: "@b/wrds"}
      b: {stage: tokeniser}
      c: {stage: tests.stages.echo, reads: /nowhere/at/all, count: many}
      d: {stage: tests.stages.echo, reads: "@e/words"}
      f: {stage: tests.stages.echo, reads: "@c/wrds", resources: {rank: 2}}
    """
    found = problems_of(tmp_path, text, "g.text=1")
    assert found["a.txt"] == "no such setting: 'txt'; did you mean text?"
    assert found["b.stage"] == "no such stage: 'tokeniser'; did you mean tokenizer?"
    assert found["c.count"].startswith("must be a valid integer")
    assert found["d.reads"].startswith("no such job: 'e'")
    assert found["f.reads"] == ("stage tests.stages.echo leaves no 'wrds'; there is @c/words")
    assert found["f.resources.rank"] == "no such setting: 'rank'; did you mean ranks?"
    assert found["g.text=1"].startswith("no such job: 'g'")


def test_a_missing_input_and_a_circle_are_seen_before_the_start(tmp_path: Path) -> None:
    text = "stage: tests.stages.echo\nreads: /nowhere/at/all\n"
    assert problems_of(tmp_path, text) == {"echo.reads": "/nowhere/at/all is not there"}
    circle = TWO.replace("{ranks: 2}", "{ranks: 2}\n    reads: '@second/words'")
    assert problems_of(tmp_path, circle)["jobs"].startswith("wait for each other in a circle")


def test_the_guilty_rank_speaks_first(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, TWO, "first.trouble=bug", "first.guilty=1")
    with pytest.raises(JobFailed) as caught:
        run(plan)
    assert "first: rank 1 ended with status 1" in str(caught.value)
    assert str(caught.value).endswith("ZeroDivisionError: a planted bug")
    assert not plan.jobs["first"].folder.receipt.exists()


def test_a_killed_rank_is_named(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, TWO, "first.trouble=kill", "first.guilty=1")
    with pytest.raises(JobFailed, match="first: rank 1 was killed by SIGKILL"):
        run(plan)


def test_what_the_user_can_mend_has_no_traceback(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, TWO, "first.trouble=user")
    with pytest.raises(UserError, match=r"^first: text: 'hello' is too friendly; say less$"):
        run(plan)


def test_names_of_any_kind_are_safe(tmp_path: Path) -> None:
    name = 'it\'s $HOME `x`\n"q" é'
    text = json.dumps({"jobs": {name: {"stage": "tests.stages.echo"}}})
    plan = plan_of(tmp_path, text)
    assert run(plan) == [(name, "done")]
    assert (plan.run / name / "words/0.txt").read_text() == "hello\n"
    assert "a job's name is a folder's" in str(problems_of(tmp_path, "jobs: {a/b: {stage: x}}"))


def test_the_command_line_says_it_in_words_and_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(TWO)
    assert main(["show", str(path), "second.txt=1"]) == 2
    error = capsys.readouterr().err
    assert error == (
        f"mj show: {path}: 1 problem, nothing was started\n"
        "  second.txt: no such setting: 'txt'; did you mean text?\n"
    )
    assert main(["show", str(path), "second.text=moon"]) == 0
    shown = capsys.readouterr().out
    assert "text: moon  (command line)" in shown
    assert "reads: @first/words  (line 5)" in shown
    assert "count: 1  (default)" in shown


def test_every_line_of_a_shown_plan_fits(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "plans/web-to-tokens.yaml"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if len(line) > 100] == []
    words = " ".join(" ".join(lines).split())
    lists = "@fetch/files/bad-words/package"
    assert f"files: {{en: {lists}/en.json, de: {lists}/de.json}} (line" in words
    assert "counts: [@web/counts.json, @handbook/counts.json, @kernel/counts.json," in words


def test_help_needs_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from megatron_jobs.cli import main\n"
        "status = main(['--help'])\n"
        "heavy = {'torch', 'numpy', 'pydantic', 'transformers', 'submitit'} & set(sys.modules)\n"
        "assert status == 0 and not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("text", "setting", "sentence"),
    [
        ("resources: big", "echo.resources", "must be a valid dictionary, got 'big'"),
        ("after: first", "echo.after", "must be a valid list, got 'first'"),
        ("resources: {ranks: 0}", "echo.resources.ranks", "must be greater than 0, got 0"),
        ("resources: {hours: .nan}", "echo.resources.hours", "must be a finite number, got nan"),
        ("resources: {gpus: -1}", "echo.resources.gpus", "must be greater than or equal to 0"),
        ("reads: ''", "echo.reads", "is empty; must name a file or folder"),
        ("reads: '@'", "echo.reads", "no such job: ''"),
    ],
)
def test_values_of_a_wrong_kind(tmp_path: Path, text: str, setting: str, sentence: str) -> None:
    found = problems_of(tmp_path, f"stage: tests.stages.echo\n{text}\n")
    assert found[setting].startswith(sentence)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("jobs: {}", "jobs: must name at least one job"),
        ("jobs: [a]", "jobs: must name at least one job"),
        ("tasks: {}", "found tasks; a plan has `jobs:`, a single job has `stage:`"),
        ("stage: !foo x", "not YAML"),
        ("stage: 2020-13-45", "not YAML"),
        ("stage: &a [*a]", "not a tree: an alias leads back to itself"),
    ],
)
def test_what_is_no_plan_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        plan_of(tmp_path, text)


@pytest.mark.parametrize(
    ("stage", "sentence"),
    [
        ("os.path", "no such stage: module 'os.path' has no OUTPUTS, RESOURCES, Config, run"),
        (".x", "no such stage: '.x'"),
        ("no.such.module", "no such stage: module 'no.such.module' cannot be imported"),
    ],
)
def test_what_is_no_stage_is_refused(tmp_path: Path, stage: str, sentence: str) -> None:
    found = problems_of(tmp_path, f"jobs: {{a: {{stage: {stage}}}}}")
    assert found["a.stage"].startswith(sentence)


def test_words_reach_names_with_dots(tmp_path: Path) -> None:
    text = "jobs: {llama-1.5b: {stage: tests.stages.echo}, llama-1: {stage: tests.stages.echo}}"
    plan = plan_of(tmp_path, text, "llama-1.5b.text=big", "llama-1.text=small")
    assert plan.jobs["llama-1.5b"].description()["text"] == "big"
    assert plan.jobs["llama-1"].description()["text"] == "small"
    alone = plan_of(tmp_path, "stage: tests.stages.echo\n", "text=moon")
    assert alone.jobs["echo"].description()["text"] == "moon"


def test_what_one_job_makes_must_fit_the_next() -> None:
    words = ["tokenizer.vocab_size=8192", "index.seq_len=300"]
    with pytest.raises(ConfigError) as caught:
        load_plan("plans/quickstart.yaml", words)
    assert dict(caught.value.problems) == {
        "pretrain.model.vocab_size": "4096 is below the tokenizer's 8192",
        "pretrain.model.seq_len": "256 is below the index's seq_len 300",
    }
    larger = ["pretrain.model.vocab_size=8192", "pretrain.model.seq_len=300"]
    assert len(load_plan("plans/quickstart.yaml", words + larger).jobs) == 7


def test_a_text_may_begin_with_an_at_sign(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "stage: tests.stages.echo\ntext: '@@home/x'\n")
    assert plan.jobs["echo"].description()["text"] == "@home/x"
    run(plan)
    assert (plan.run / "echo/words/0.txt").read_text() == "@home/x\n"


def test_a_run_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a run").write_text("a file")
    with pytest.raises(UserError, match="cannot be made: File exists; choose another --run"):
        run(plan_of(tmp_path, TWO))


def test_what_is_moved_aside_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(plan_of(tmp_path, TWO))
    run(plan_of(tmp_path, TWO, "second.text=moon"))
    said = capsys.readouterr().out
    assert "second: what stood there, of other settings or inputs, is now in " in said


def test_samples_are_counted_where_they_are_known(tmp_path: Path) -> None:
    """Two sources with weights give what is asked; a single one whole epochs, perhaps more."""
    source = "{path: '@tokenize/tokens', weight: 1}"
    text = f"""
    jobs:
      tokenizer: {{stage: tokenizer, input: [{__file__}]}}
      tokenize: {{stage: tokenize, input: [{__file__}], tokenizer: "@tokenizer/tokenizer"}}
      index: {{stage: index, train_samples: 10, valid_samples: 0, tokens: [{source}, {source}]}}
      pretrain:
        stage: pretrain
        index: "@index/index"
        model: {{preset: llama-tiny, vocab_size: 32768, seq_len: 2048}}
        batch: {{global_size: 4}}
        steps: 3
    """
    assert problems_of(tmp_path, text) == {
        "pretrain.steps": "3 x batch.global_size 4 = 12 samples; "
        "the index is to hold 10: give it train_samples: 12"
    }
    assert len(plan_of(tmp_path, text.replace(f"[{source}, {source}]", f"[{source}]")).jobs) == 4


def test_a_start_removes_what_ranks_that_were_killed_long_ago_have_left(tmp_path: Path) -> None:
    left = node_folder(tmp_path / "gone", start="1.0", host=os.uname().nodename)
    left.mkdir()
    os.utime(left, (0, 0))
    run(plan_of(tmp_path, TWO))
    assert not left.exists()
