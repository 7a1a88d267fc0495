"""Stages for decoders refuse a checkpoint of another kind before they open it."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from megatron_jobs.errors import UserError
from megatron_jobs.runtime.files import write_json
from megatron_jobs.runtime.rank import ALONE
from megatron_jobs.stages import evaluate, generate

STAGES: dict[str, tuple[ModuleType, dict[str, Any]]] = {
    "generate continues": (generate, {"tokenizer": "/tokens", "prompts": ["a"]}),
    "evaluate scores": (evaluate, {"tokenizer": "/tokens", "index": "/index"}),
}


def saved(folder: Path, model: dict[str, Any]) -> Path:
    """A folder of checkpoints of which there is nothing but what one says of itself."""
    step = folder / "step-00000000"
    step.mkdir(parents=True)
    write_json(step / "manifest.json", {"step": 0, "record": {"model": model}})
    (folder / "latest").write_text("step-00000000\n")
    return folder


@pytest.mark.parametrize("what", STAGES)
def test_an_encoder_is_refused(what: str, tmp_path: Path) -> None:
    stage, settings = STAGES[what]
    checkpoint = saved(tmp_path / "bert", {"kind": "encoder"})
    config = stage.Config(checkpoint=checkpoint, **settings)
    told = f"{checkpoint} holds an encoder: {what} decoders only; `convert` takes every kind"
    assert list(stage.foresee(config, {})) == [("checkpoint", told)]
    with pytest.raises(UserError, match=told):
        stage.run(config, ALONE, tmp_path)


@pytest.mark.parametrize("what", STAGES)
def test_what_is_no_fault(what: str, tmp_path: Path) -> None:
    """A decoder, one saved before there were kinds, and what is not there yet."""
    stage, settings = STAGES[what]
    folders = [
        saved(tmp_path / "new", {"kind": "decoder"}),
        saved(tmp_path / "old", {}),
        tmp_path / "to come",
    ]
    for folder in folders:
        assert not list(stage.foresee(stage.Config(checkpoint=folder, **settings), {}))
