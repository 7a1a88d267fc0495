"""convert_checkpoint.py and inspect_checkpoint.py as people call them."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from megatron_jobs.checkpoint.model import model_of
from tests.family_models import saved_model

ROOT = Path(__file__).parents[2]


def call(tool: str, *words: object) -> tuple[int, str, str]:
    """(exit status, stdout, stderr)."""
    command = [sys.executable, str(ROOT / "tools" / tool), *map(str, words)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    return done.returncode, done.stdout, done.stderr


def test_the_flags_of_megatron(tmp_path: Path) -> None:
    ours = tmp_path / "ours"
    there = flags_of(tmp_path, ours)
    more = ["--target-tensor-parallel-size", 2, "--make-vocab-size-divisible-by", 25]
    more += ["--save-dir", tmp_path / "zz" / ".." / "ours"]
    status, out, error = call("convert_checkpoint.py", *there, *more)
    assert status == 0, error
    assert out.startswith(f"{ours}: 27 tensors, 27 read back")
    assert not (tmp_path / "zz").exists()
    assert model_of(ours).padded_vocab() == 300
    assert len(list((ours / "step-00000000").glob("*.distcp"))) == 2
    status, _, error = call("convert_checkpoint.py", *there)
    assert status == 2
    assert "is there already; nothing is overwritten" in error


def flags_of(tmp_path: Path, out: Path) -> list[object]:
    """Of a conversion that can be done."""
    saved_model("llama", tmp_path / "theirs")
    there: list[object] = ["--model-type", "GPT", "--loader", "hf", "--saver", "mcore"]
    return [*there, "--proof", "tensors", "--load-dir", tmp_path / "theirs", "--save-dir", out]


def test_flags_that_cannot_work_are_named(tmp_path: Path) -> None:
    there = flags_of(tmp_path, tmp_path / "ours")
    wrong, odd, link = tmp_path / "wrong.yaml", tmp_path / "odd.yaml", tmp_path / "link"
    wrong.write_text("{layerz: 2, hidden: wide}")
    odd.write_text("{layers: 2, hidden: 65, heads: 4, vocab_size: 100}")
    link.symlink_to(tmp_path / "nowhere")
    positive = ["--target-pipeline-parallel-size", "--make-vocab-size-divisible-by", "--threads"]
    cases: list[tuple[list[object], str]] = [
        (["--target-tensor-parallel-size", 3], "4 heads cannot be cut over 3 tensor ranks"),
        (
            [word for flag in positive for word in (flag, 0)],
            "\n".join(f"{flag}: must be greater than 0, got 0" for flag in positive),
        ),
        (["--model-config", wrong], "wrong.yaml: layerz: no such setting: 'layerz'; did you mean"),
        (["--model-config", odd], "odd.yaml: heads: 4 heads do not divide hidden = 65"),
        (["--save-dir", link], "link: is there already; nothing is overwritten"),
        (["--loader", "gguf"], "theirs is of kind hugging_face"),
        (["--load-dir", tmp_path / "none"], "none: no such folder"),
        (["--load-dir", "a" * 300], "aaa: File name too long\n"),
        (["--load-dir", tmp_path], "no checkpoint that is known: there is no config.json, "),
    ]
    for more, message in cases:
        status, _, error = call("convert_checkpoint.py", *there, *more)
        assert status == 2
        assert message in error
        assert "Traceback" not in error
    status, _, error = call("inspect_checkpoint.py", "a" * 300)
    assert status == 2
    assert error.startswith("inspect_checkpoint: aaa")
    assert error.endswith("aaa: File name too long\n")


def test_what_is_inside(tmp_path: Path) -> None:
    plain = saved_model("qwen3_moe", tmp_path)
    status, out, error = call("inspect_checkpoint.py", tmp_path, "--json", "--tensors", "--check")
    assert status == 0, error
    found = json.loads(out)
    assert (found["kind"], found["family"]) == ("hugging_face", "qwen3_moe")
    assert found["model"]["experts"] == 4
    assert found["each"]["decoder.layers.3.self_attention.linear_proj.weight"] == [
        [32, 64], "float32", "columns",
    ]  # fmt: skip
    assert found["numbers_that_are_none"] == {}
    with torch.no_grad():
        plain.get_parameter("model.norm.weight")[3] = float("nan")
    plain.save_pretrained(tmp_path)  # type: ignore[operator]
    status, out, _ = call("inspect_checkpoint.py", tmp_path, "--check")
    assert status == 0
    assert "  decoder.final_layernorm.weight: 1" in out.splitlines()
    assert "kind: hugging_face" in out.splitlines()


class Planted:
    """Runs a command when it is unpickled by somebody trusting."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("attack", ["pickle", "path", "header", "short", "bomb"])
def test_untrusted_files_are_refused_in_a_word(tmp_path: Path, attack: str) -> None:
    source, harm = tmp_path / "theirs", tmp_path / "harm"
    saved_model("llama", source)
    file = source / "model.safetensors"
    data = file.read_bytes()
    if attack == "pickle":
        file.unlink()
        (source / "pytorch_model.bin").write_bytes(pickle.dumps({"x": Planted(harm)}))
        message = "pytorch_model.bin: asks for posix.system"
    elif attack == "path":
        file.rename(tmp_path / "outside.safetensors")
        index = {"metadata": {}, "weight_map": {"x": "../outside.safetensors"}}
        (source / "model.safetensors.index.json").write_text(json.dumps(index))
        message = "model.safetensors.index.json: "
    elif attack == "header":
        file.write_bytes((2**62).to_bytes(8, "little") + data[8:])
        message = "model.safetensors: "
    elif attack == "short":
        file.write_bytes(data[:-64])
        message = "model.safetensors: "
    else:
        (source / "config.json").write_text('{"a":' * 100_000 + "1" + "}" * 100_000)
        message = "config.json: is nested too deeply"
    words = ["--saver", "mcore", "--load-dir", source, "--save-dir", tmp_path / "out"]
    status, _, error = call("convert_checkpoint.py", *words)
    assert status == 2
    assert message in error
    assert len(error) < 1000
    assert "Traceback" not in error
    assert not harm.exists()
    assert not (tmp_path / "out").exists()
    assert call("inspect_checkpoint.py", source)[0] == 2


def test_code_beside_a_tokenizer_does_not_run(tmp_path: Path) -> None:
    """auto_map names a module of the folder; the proof opens the tokenizer without it."""
    source, harm = tmp_path / "theirs", tmp_path / "harm"
    saved_model("llama", source)
    settings = {"tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": ["mine.Mine", None]}}
    (source / "tokenizer_config.json").write_text(json.dumps(settings))
    (source / "vocab.json").write_text("{}")
    (source / "mine.py").write_text(f"open({str(harm)!r}, 'w').close()\nclass Mine: pass\n")
    words = ["--saver", "mcore", "--load-dir", source, "--save-dir", tmp_path / "out"]
    status, _, error = call("convert_checkpoint.py", *words)
    assert not harm.exists()
    assert status == 2, error
    assert "theirs: its tokenizer cannot be opened: " in error
    assert "Traceback" not in error
    assert not list(tmp_path.glob("out*"))
