"""Checkpoints of plain megatron-core code are read as the parameters that its modules had."""

import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from torch import Tensor

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.convert.legacy import open_legacy
from megatron_jobs.convert.matrix import Matrix
from megatron_jobs.convert.torch_dist_in import open_checkpoint
from megatron_jobs.errors import DataError, UserError
from tests.plain_checkpoints import ROWS, SEQ_LEN, VOCAB, save_plain

MODEL = ModelConfig(
    layers=4, hidden=32, heads=4, kv_heads=2, head_dim=8, ffn=48, vocab_size=VOCAB,
    pad_vocab_to=ROWS, seq_len=SEQ_LEN, norm_eps=1e-6,
)  # fmt: skip
EXPERTS = MODEL.model_copy(update={"experts": 4, "expert_ffn": 24})
Plain = tuple[Path, dict[str, Tensor], dict[str, Tensor]]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Plain:
    root = tmp_path_factory.mktemp("plain")
    return root, *save_plain(root)


def check_equal(found: dict[str, Matrix], wanted: dict[str, Tensor]) -> None:
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        assert found[name].shape == tuple(value.shape), name
        array = value.contiguous().reshape(-1).view(torch.uint8).numpy()
        assert found[name].array().tobytes() == array.tobytes(), name


def test_a_checkpoint_of_plain_megatron_core_is_read_bit_by_bit(plain: Plain) -> None:
    root, dense, _ = plain
    tensors, model = open_checkpoint(root / "dense")
    check_equal(tensors, dense)
    wanted = MODEL.model_copy(update={"qk_norm": True, "pad_vocab_to": 2 * 32})
    assert model.model_dump() == wanted.model_dump()


def test_experts_are_counted_over_expert_ranks(plain: Plain) -> None:
    root, _, experts = plain
    tensors, _ = open_checkpoint(root / "experts", EXPERTS)
    check_equal(tensors, experts)
    assert tensors["decoder.final_layernorm.weight"].dtype == ml_dtypes.bfloat16


def test_a_folder_of_ranks_is_read_bit_by_bit(plain: Plain) -> None:
    root, dense, _ = plain
    for folder in (root / "legacy", root / "legacy" / "iter_0000010"):
        tensors, model = open_legacy(folder)
        check_equal(tensors, dense)
        assert model.qk_norm


def test_torch_is_not_needed(plain: Plain) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from megatron_jobs.convert.torch_dist_in import open_checkpoint\n"
        "found, _ = open_checkpoint(Path(sys.argv[1]))\n"
        "print(len(found), 'torch' in sys.modules)"
    )
    words = [sys.executable, "-c", code, str(plain[0] / "dense")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(len(plain[1])), "False"]


def test_without_arguments_the_model_must_be_said(plain: Plain) -> None:
    with pytest.raises(UserError, match="holds no arguments of Megatron-LM"):
        open_checkpoint(plain[0] / "experts")


def test_rows_beyond_ours_are_left_and_rows_that_lack_are_padded(plain: Plain) -> None:
    root, dense, _ = plain
    name = "embedding.word_embeddings.weight"
    for multiple in (2, 384):
        model = MODEL.model_copy(update={"qk_norm": True, "pad_vocab_to": multiple})
        tensors, _ = open_checkpoint(root / "dense", model)
        found = tensors[name].array()
        assert len(found) == model.padded_vocab()
        assert np.array_equal(found[:VOCAB], dense[name][:VOCAB].numpy())


@pytest.fixture
def copied(plain: Plain, tmp_path: Path) -> Path:
    return Path(shutil.copytree(plain[0] / "dense", tmp_path / "copy"))


def test_a_file_that_is_missing_is_named(copied: Path) -> None:
    (copied / "__2_0.distcp").unlink()
    with pytest.raises(DataError, match=r"__2_0\.distcp: is missing"):
        open_checkpoint(copied)


def test_a_file_that_is_cut_short_is_named(copied: Path) -> None:
    file = copied / "__1_0.distcp"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"__1_0\.distcp: .*: ends at .* bytes, its archive at"):
        open_checkpoint(copied)


def change_metadata(folder: Path, change: str) -> None:
    with (folder / ".metadata").open("rb") as file:
        metadata = pickle.load(file)
    tensor = metadata.state_dict_metadata["decoder.layers.mlp.linear_fc2.weight"]
    if change == "hole":
        del tensor.chunks[3]
    elif change == "overlap":
        tensor.chunks[1] = tensor.chunks[0]
    elif change == "size":
        tensor.size = torch.Size([4, 32, 96])
    else:
        for info in metadata.storage_data.values():
            info.relative_path = "../dense/" + info.relative_path
    with (folder / ".metadata").open("wb") as file:
        pickle.dump(metadata, file)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("hole", r"decoder\.layers\.\d\.mlp\.linear_fc2\.weight: parts hold 768 numbers of 1536"),
        ("overlap", r"decoder\.layers\.\d\.mlp\.linear_fc2\.weight: parts"),
        ("size", r"linear_fc2\.weight: parts hold 1536 numbers of 3072"),
        ("climb", "a path that climbs out"),
    ],
)
def test_metadata_that_lies_is_refused(copied: Path, change: str, words: str) -> None:
    change_metadata(copied, change)
    with pytest.raises(DataError, match=words):
        open_checkpoint(copied)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"layers": 3}, r"decoder\.layers\.3: its settings ask for 3 layers"),
        ({"layers": 5}, r"decoder\.layers\.4: missing"),
        ({"ffn": 64}, r"linear_fc1\.weight: found \[96, 32\], its settings ask for \[128, 32\]"),
        ({"qk_norm": False}, r"q_layernorm\.weight: is there, its settings ask for none"),
        ({"qkv_bias": True}, r"self_attention\.linear_qkv\.bias: missing; its settings ask for it"),
        ({"vocab_size": 400}, "320 rows are too few for 400 tokens"),
    ],
)
def test_settings_of_another_model_are_refused(
    plain: Plain, more: dict[str, int], words: str
) -> None:
    model = MODEL.model_copy(update={"qk_norm": True} | more)
    with pytest.raises(DataError, match=words):
        open_checkpoint(plain[0] / "dense", model)


def test_a_rank_that_is_missing_is_said(plain: Plain, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(plain[0] / "legacy", tmp_path / "copy"))
    shutil.rmtree(copy / "iter_0000010" / "mp_rank_01_001")
    with pytest.raises(DataError, match="holds 3 of 2 tensor x 2 pipeline x 1 expert ranks"):
        open_legacy(copy)
