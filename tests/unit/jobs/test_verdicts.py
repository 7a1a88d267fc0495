"""`mj data verdicts`: what each rule took, of whom, and examples."""

import json
from pathlib import Path

import pytest

from megatron_jobs.cli import main
from megatron_jobs.config.build import build_settings
from megatron_jobs.errors import EXIT_USER
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.stages import filter as stage
from tests.runs import make_job

RULES = [{"rule": "length", "min_characters": 10}, {"rule": "symbols", "max_digits": 0.5}]


def text_of(number: int) -> str:
    """Every fifth is short, of the others every sixth is of digits."""
    if number % 5 == 0:
        return "short"
    return "2024 12 31 23 59 59" if number % 6 == 1 else f"a text of number {number}"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Job `sift`: of 20 records 4 are too short, 4 of digits; 1 line is no record."""
    run = tmp_path / "run"
    folder = make_job(run, "sift", stage="filter").path
    make_job(run, "train")
    lines = []
    for i in range(20):
        source = "books" if i < 10 else "web"
        record = {"id": f"r{i}", "text": text_of(i), "source": source, "url": f"https://x.org/{i}"}
        lines.append(json.dumps(record | {"language": "de" if i == 5 else "en"}))
    (tmp_path / "in.jsonl").write_text("\n".join([*lines, "{no record"]))
    given = {"input": [str(tmp_path / "in.jsonl")], "rules": RULES, "max_quarantined_share": 1}
    config, problems = build_settings(stage.Config, given)
    assert config is not None, problems
    stage.run(config, Rank(), folder)
    return run


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert main(["data", "verdicts", *words]) == 0
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


def test_counts_shares_and_origins(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, str(run))
    assert lines[0] == "sift: 21 read, 12 kept (57.1%), 8 rejected, 1 quarantined"
    cells = [line.split(maxsplit=3) for line in lines[2:]]
    assert cells[0] == [
        "length.too_low_characters", "4", "19.0%", "books 50%, web 50%  en 75%, de 25%"
    ]  # fmt: skip
    assert cells[1][:3] == ["symbols.too_high_digits", "4", "19.0%"]
    assert lines[4].split()[:5] == ["quarantined:", "not", "JSON", "1", "4.8%"]


def test_what_is_little_is_not_called_nothing(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / "sift/counts.json"
    counts = json.loads(path.read_text())
    counts["read"] = 100_000
    path.write_text(json.dumps(counts))
    assert printed(capsys, str(run))[2].split()[:3] == ["length.too_low_characters", "4", "<0.1%"]


def test_examples_say_what_was_found(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, str(run), "sift", "--rule", "length", "--examples", "2")
    assert sum(line.startswith(("symbols", "quarantined")) for line in lines) == 0
    at = lines.index("length.too_low_characters: r0 https://x.org/0")
    assert lines[at + 1 : at + 3] == ["  found 5, limit 10", "  short"]
    assert sum(line.startswith("length.too_low_characters: ") for line in lines) == 2


def test_examples_of_what_is_no_record(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, str(run), "--examples", "1", "--no-origins")
    at = next(i for i, line in enumerate(lines) if line.startswith("quarantined: not JSON: "))
    assert lines[at] == "quarantined: not JSON: in.jsonl:21"
    assert lines[at + 1 : at + 3] == ["  10 bytes", "  {no record"]
    assert "sources" not in lines[1]


def test_a_job_that_goes_on_is_counted_so_far(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "sift/counts.json").unlink()
    lines = printed(capsys, str(run))
    assert lines[0] == "sift: 21 read, 12 kept (57.1%), 8 rejected, 1 quarantined, so far"


def test_tasks_are_counted_before_they_are_gathered(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "moved").mkdir()
    for name in ("counts", "counts.json", "rejected", "quarantined", "documents"):
        (run / "sift" / name).rename(tmp_path / "moved" / name)
    (run / "sift/tasks/0-999").mkdir(parents=True)
    (tmp_path / "moved").rename(run / "sift/tasks/0-999/3")
    assert printed(capsys, str(run))[2].split()[1:3] == ["4", "19.0%"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sitf"], "no such job: 'sitf'; did you mean sift?"),
        (["train"], "{run}: job train has judged no records yet; a job over records must run"),
        (
            ["--rule", "length.too_low"],
            "--rule: no such rule that took anything: 'length.too_low'; "
            "did you mean length.too_low_characters?",
        ),
    ],
)
def test_what_is_not_there(
    words: list[str], message: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "verdicts", str(run), *words]) == EXIT_USER
    assert capsys.readouterr().err.strip() == f"mj data: {message.format(run=run)}"


def test_a_damaged_shard_is_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shard = run / "sift/rejected/000000.jsonl.zst"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:20] + bytes([whole[20] ^ 255]) + whole[21:])
    assert main(["data", "verdicts", str(run)]) == EXIT_USER
    error = capsys.readouterr().err
    assert error.startswith(f"mj data: {shard}: damaged: ")
    assert error.rstrip().endswith("; run the job again")
