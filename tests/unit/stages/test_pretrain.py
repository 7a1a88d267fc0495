"""What keeps a training from being cut over its ranks is said before anything starts."""

from pathlib import Path
from typing import Any

import pytest

from megatron_jobs.cli import main
from megatron_jobs.config.resources import Resources
from megatron_jobs.config.settings import all_problems
from megatron_jobs.jobs.plan import RESERVED, load_plan
from megatron_jobs.jobs.receipt import job_key
from megatron_jobs.stages import STAGES, load_stage
from megatron_jobs.stages.pretrain import Config, check, describe

SETTINGS: dict[str, Any] = {
    "index": "/data/index",
    "model": {"layers": 4, "hidden": 64, "heads": 4, "vocab_size": 1000, "seq_len": 64},
    "batch": {"global_size": 8, "micro_size": 2},
    "steps": 10,
}


def problems(world: int, **changes: dict[str, Any]) -> list[tuple[str, str]]:
    merged = {**SETTINGS, **{k: {**SETTINGS.get(k, {}), **v} for k, v in changes.items()}}
    return list(check(Config(**merged), Resources(ranks=world)))


def test_what_fits_has_no_problems() -> None:
    assert problems(1) == []
    mesh = {"tensor": 2, "pipeline": 2, "virtual": 2, "sequence_parallel": True}
    assert problems(8, mesh=mesh) == []


def test_stages_that_differ_are_shown() -> None:
    config = Config(**SETTINGS, mesh={"pipeline": 3})
    assert ("layers of stages", "1 + 2 + 1") in describe(config, Resources(ranks=3))
    alike = Config(**SETTINGS, mesh={"pipeline": 2})
    assert "layers of stages" not in dict(describe(alike, Resources(ranks=2)))


@pytest.mark.parametrize(
    ("world", "changes", "wanted"),
    [
        (
            3,
            {"mesh": {"tensor": 2}},
            ("mesh.tensor", "tensor x pipeline x context = 2 x 1 x 1 = 2 does not divide 3 ranks; "
             "the next that works: 4"),
        ),
        (
            1,
            {"model": {"kind": "encoder"}},
            ("model.kind", "an encoder: pretrain trains decoders only; `convert` takes every kind"),
        ),
        (
            3,
            {"mesh": {"tensor": 3}},
            ("model.heads", "4 heads cannot be cut over 3 tensor ranks"),
        ),
        (
            2,
            {"mesh": {"pipeline": 2}, "model": {"layers": 1}},
            ("model.layers", "1 layers cannot be cut into pipeline x virtual = 2 x 1 = 2 blocks"),
        ),
        (
            2,
            {"batch": {"global_size": 10}},
            ("batch.global_size", "10 is not a multiple of micro_size x data = 2 x 2 = 4; "
             "the next that is: 12"),
        ),
        (
            2,
            {"mesh": {"context": 2}, "model": {"seq_len": 62}},
            ("model.seq_len", "62 cannot be cut into 4 pieces, two for each context rank"),
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said(
    world: int, changes: dict[str, Any], wanted: tuple[str, str]
) -> None:
    assert wanted in problems(world, **changes)


def test_all_that_does_not_fit_is_said_at_once() -> None:
    found = problems(
        4,
        mesh={"tensor": 2, "pipeline": 2},
        model={"layers": 1, "heads": 1, "hidden": 8, "ffn": 7},
        batch={"global_size": 9},
    )
    assert [name for name, _ in found] == [
        "model.heads", "model.ffn", "model.layers", "batch.global_size"
    ]  # fmt: skip


def test_a_run_without_steps_is_refused() -> None:
    found = dict(all_problems(Config(**{**SETTINGS, "steps": 0, "keep": -1})))
    assert found == {"steps": "0 is below 1", "keep": "-1 is below 0; 0 leaves it out"}


def test_the_command_line_says_it_with_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text(
        f"stage: pretrain\nresources: {{ranks: 2}}\nindex: {tmp_path}\nsteps: 10\n"
        "model: {preset: llama-tiny}\nmesh: {tensor: 2}\nbatch: {global_size: 7, micro_size: 2}\n"
    )
    words = ["run", str(plan), "--run", str(tmp_path / "run"), "model.heads=3", "model.hidden=192"]
    assert main(words) == 2
    assert capsys.readouterr().err == (
        f"mj run: {plan}: 3 problems, nothing was started\n"
        "  pretrain.model.kv_heads: 2 does not divide heads = 3\n"
        "  pretrain.model.heads: 3 heads cannot be cut over 2 tensor ranks\n"
        "  pretrain.batch.global_size: 7 is not a multiple of micro_size x data = 2 x 1 = 2; "
        "the next that is: 8\n"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", STAGES)
def test_what_a_stage_leaves_out_of_its_key_are_settings_of_it(name: str) -> None:
    stage = load_stage(name)
    for setting in getattr(stage, "LAYOUT", ()):
        place: Any = stage.Config
        for part in setting.split("."):
            assert part in place.model_fields, setting
            place = place.model_fields[part].annotation


@pytest.mark.parametrize("name", STAGES)
def test_no_setting_is_called_as_a_part_of_every_job(name: str) -> None:
    """In a plan they stand side by side."""
    assert not set(load_stage(name).Config.model_fields) & set(RESERVED)


@pytest.mark.parametrize(
    ("word", "same"),
    [
        ("resources.ranks=4", True),
        ("mesh.pipeline=2", True),
        ("mesh.recompute=layer", True),
        ("batch.micro_size=1", True),
        ("save_every=7", True),
        ("keep=0", True),
        ("batch.global_size=16", False),
        ("steps=11", False),
        ("optim.lr=1e-4", False),
        ("precision=fp32", False),
        ("seed=1", False),
    ],
)
def test_the_key_is_of_what_is_trained_not_of_how_it_is_laid_out(
    word: str, same: bool, tmp_path: Path
) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text(
        f"stage: pretrain\nresources: {{ranks: 2}}\nindex: {tmp_path}\nsteps: 10\n"
        "model: {preset: llama-tiny}\nbatch: {global_size: 8, micro_size: 2}\n"
    )
    keys = [job_key(load_plan(str(plan), words).jobs["pretrain"], {}) for words in ([], [word])]
    assert (keys[0] == keys[1]) is same
