"""Training that is saved and gone on with equals training in one go; what lies is refused."""

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.testing import assert_close

from megatron_jobs.checkpoint.load import load_checkpoint
from megatron_jobs.checkpoint.manifest import latest_checkpoint, read_manifest, step_folder
from megatron_jobs.checkpoint.save import save_checkpoint
from megatron_jobs.checkpoint.state import Training, fingerprint, share_bytes
from megatron_jobs.config.latent import LatentAttention
from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.optim import OptimConfig
from megatron_jobs.config.precision import Precision
from megatron_jobs.config.router import RouterConfig
from megatron_jobs.errors import DataError
from megatron_jobs.parallel.cures import unwrap
from megatron_jobs.parallel.groups import open_groups
from megatron_jobs.runtime.files import file_hash, tree_bytes
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.train.loop import layout_of
from megatron_jobs.train.step import Engine, build_engine, train_step
from tests.batches import SEQ_LEN, VOCAB, micro_batches
from tests.ranks import on_ranks, ranks

STEPS = 20
HALF = 10
OPTIM = OptimConfig(lr=1e-3, min_lr=1e-4, warmup_steps=3, decay_steps=STEPS, clip=0.5)
LLAMA = ModelConfig(
    layers=4, hidden=32, heads=4, kv_heads=2, ffn=64, vocab_size=VOCAB, seq_len=SEQ_LEN
)
TIED = LLAMA.model_copy(update={"tied": True})
DROPPING = LLAMA.model_copy(update={"dropout": 0.1, "attention_dropout": 0.1})
EXPERTS = LLAMA.model_copy(update={"layers": 2, "experts": 4})
LATENT = LLAMA.model_copy(
    update={
        "kv_heads": None,
        "rope_interleaved": True,
        "latent": LatentAttention(q_rank=12, kv_rank=20, nope_dim=10, rope_dim=6, value_dim=8),
        "experts": 4,
        "expert_ffn": 24,
        "shared_ffn": 24,
        "dense_layers": (0,),
        "router": RouterConfig(score="sigmoid", bias=True),
    }
)
"""Layers that differ, and a bias that training moves."""
SQUARE = Mesh(tensor=2, sequence_parallel=True)
"""On four ranks: tensor 2 x data 2."""


@dataclass(frozen=True)
class Case:
    """What is trained, on how many ranks."""

    model: ModelConfig = LLAMA
    mesh: Mesh = field(default=SQUARE)
    world: int = 4
    precision: Precision = "fp32"


@dataclass(frozen=True)
class Trained:
    """What a rank saw and had at the end."""

    numbers: list[tuple[float, float]]
    """Loss and gradient norm of each step."""
    state: str
    """The fingerprint after the last step."""
    tensors: list[Tensor]
    """Weights, fp32 parameters, moments, step counters and the scale of the loss (fp16), found
    without the code under test."""


def open_training(case: Case, rank: Rank) -> tuple[Engine, Training]:
    open_groups(case.mesh, seed=1)
    engine = build_engine(case.model, case.mesh, OPTIM, precision=case.precision, seed=3)
    return engine, Training(engine.chunks, engine.optimizer, layout_of(engine, rank))


def whole_state(engine: Engine) -> list[Tensor]:
    """Copies of all that training moves on this rank."""
    chunks = [unwrap(chunk) for chunk in engine.chunks]
    tensors = [p.detach().clone() for chunk in chunks for p in chunk.parameters()]
    tensors += [b.clone() for chunk in chunks for b in chunk.buffers()]
    for part in engine.optimizer.chained_optimizers:
        for parameter, state in part.optimizer.state.items():
            tensors.append(parameter.detach().clone())
            tensors += [state[name].clone() for name in ("step", "exp_avg", "exp_avg_sq")]
    return [*tensors, torch.tensor(float(engine.optimizer.get_loss_scale()))]


def train(case: Case, root: Path, *, resume: bool, last: int) -> list[Trained]:
    """Train in new processes from the start, or from the latest checkpoint; save at HALF."""

    def life(rank: Rank) -> Trained:
        engine, training = open_training(case, rank)
        start = load_checkpoint(step_folder(root, HALF), training).step if resume else 0
        numbers = []
        for step in range(start + 1, last + 1):
            result = train_step(engine, micro_batches(step), step)
            numbers.append((result.loss, result.grad_norm))
            if step == HALF:
                save_checkpoint(root, step, training, {})
        return Trained(numbers, fingerprint(training), whole_state(engine))

    return list(on_ranks(case.world, life))


CASES = {
    "tensor 2 x data 2, fp32": Case(),
    "tensor 2 x data 2, bf16, dropout": Case(DROPPING, precision="bf16"),
    "data 2, fp16": Case(mesh=Mesh(), world=2, precision="fp16"),
    "data 2, overlap": Case(mesh=Mesh(overlap=True), world=2),
    "pipeline 2 x virtual 2": Case(mesh=Mesh(pipeline=2, virtual=2), world=2),
    "pipeline 2, tied": Case(TIED, Mesh(pipeline=2), 2),
    "experts 2": Case(EXPERTS, Mesh(expert=2), 2),
    "latent, experts 2, bf16": Case(LATENT, Mesh(expert=2), 2, "bf16"),
}


@pytest.fixture(scope="module")
def in_one_go(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Case], tuple[Path, Any]]:
    """Where a case was saved at HALF, and what its ranks saw in STEPS steps."""

    @functools.cache
    def run(case: Case) -> tuple[Path, list[Trained]]:
        root = tmp_path_factory.mktemp("checkpoints")
        return root, train(case, root, resume=False, last=STEPS)

    return run


InOneGo = Callable[[Case], tuple[Path, list[Trained]]]


@pytest.mark.parametrize("name", CASES)
def test_saved_and_gone_on_with_it_equals_one_go(name: str, in_one_go: InOneGo) -> None:
    """Every loss and gradient norm, and at the end every tensor on every rank, bit for bit."""
    root, whole = in_one_go(CASES[name])
    second = train(CASES[name], root, resume=True, last=STEPS)
    for went_on, undisturbed in zip(second, whole, strict=True):
        assert went_on.numbers == undisturbed.numbers[HALF:]
        assert went_on.state == undisturbed.state
        assert all(map(torch.equal, went_on.tensors, undisturbed.tensors))
    assert len({went_on.state for went_on in second}) == len(second), "each rank's share is its own"


@pytest.mark.parametrize(
    ("world", "mesh"),
    [(3, Mesh(pipeline=3)), (1, Mesh()), (2, Mesh(context=2)), (4, Mesh(tensor=4))],
    ids=["pipeline 3", "one rank", "context 2", "tensor 4"],
)
def test_it_goes_on_in_another_layout(world: int, mesh: Mesh, in_one_go: InOneGo) -> None:
    root, whole = in_one_go(CASES["tensor 2 x data 2, fp32"])
    for went_on in train(Case(mesh=mesh, world=world), root, resume=True, last=STEPS):
        assert_close(went_on.numbers, whole[0].numbers[HALF:], rtol=0, atol=1e-5)


def test_tied_embeddings_go_on_in_another_layout(in_one_go: InOneGo) -> None:
    root, whole = in_one_go(CASES["pipeline 2, tied"])
    for went_on in train(Case(TIED, Mesh(tensor=2), 2), root, resume=True, last=STEPS):
        assert_close(went_on.numbers, whole[0].numbers[HALF:], rtol=0, atol=1e-5)


@ranks(2)
def test_what_is_loaded_is_what_a_plain_run_has_at_that_step(rank: Rank, tmp_path: Path) -> None:
    """Step counters count on, each by itself; moments and weights are equal, tensor for tensor."""
    case = Case(mesh=Mesh(), world=2)
    plain, training = open_training(case, rank)
    for step in (1, 2, 3):
        train_step(plain, micro_batches(step), step)
    save_checkpoint(tmp_path, 3, training, {})
    dist.barrier()
    loaded = build_engine(case.model, case.mesh, OPTIM, precision="fp32", seed=99)
    load_checkpoint(
        step_folder(tmp_path, 3), Training(loaded.chunks, loaded.optimizer, training.layout)
    )
    for step in (4, 5):
        assert all(map(torch.equal, whole_state(loaded), whole_state(plain)))
        for part in loaded.optimizer.chained_optimizers:
            counters = [state["step"] for state in part.optimizer.state.values()]
            assert {counter.item() for counter in counters} == {step - 1}
            assert len({counter.data_ptr() for counter in counters}) == len(counters)
        assert train_step(loaded, micro_batches(step), step) == train_step(
            plain, micro_batches(step), step
        )


@pytest.mark.parametrize(("precision", "weight_bytes"), [("fp32", 4), ("bf16", 2)])
def test_the_room_asked_for_is_what_is_written(
    precision: Precision, weight_bytes: int, tmp_path: Path
) -> None:
    """Weights once, and three fp32 numbers for each, however many data ranks hold them."""
    model = LLAMA.model_copy(update={"hidden": 256, "ffn": 1024})

    def life(rank: Rank) -> int:
        engine, training = open_training(Case(model, Mesh(), 2, precision), rank)
        train_step(engine, micro_batches(1), 1)
        save_checkpoint(tmp_path, 1, training, {})
        return share_bytes(training)

    asked = sum(on_ranks(2, life))
    assert asked == pytest.approx((weight_bytes + 12) * model.parameters(), rel=1e-3)
    assert asked == pytest.approx(tree_bytes(tmp_path), rel=0.03)


Damage = Callable[[Path], object]


def first_tensors(folder: Path) -> Path:
    return min(folder.glob("*.distcp"))


def flip_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(folder: Path) -> None:
    path = first_tensors(folder)
    path.write_bytes(path.read_bytes()[:-1])


def lie(change: Callable[[dict[str, Any]], object]) -> Damage:
    def write(folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        change(manifest)
        (folder / "manifest.json").write_text(json.dumps(manifest))

    return write


DAMAGES: dict[str, tuple[Damage, str]] = {
    "a flipped byte": (
        lambda folder: flip_byte(first_tensors(folder)),
        "{tensors}: its bytes are not those that were saved (sha256 differs)",
    ),
    "a flipped byte in what another rank looks through": (
        lambda folder: flip_byte(folder / "random.pt"),
        "{folder}/random.pt: its bytes are not those that were saved (sha256 differs)",
    ),
    "a flipped byte of what says where tensors are": (
        lambda folder: flip_byte(folder / ".metadata"),
        "{folder}/.metadata: its bytes are not those that were saved (sha256 differs)",
    ),
    "a missing file": (lambda folder: first_tensors(folder).unlink(), "{tensors}: is missing"),
    "a short file": (truncate, "{tensors}: has {less} bytes, the manifest says {bytes}"),
    "no manifest": (
        lambda folder: (folder / "manifest.json").unlink(),
        "{folder}: no manifest.json; not a whole checkpoint",
    ),
    "half a manifest": (
        lambda folder: (folder / "manifest.json").write_text('{"step": 3,'),
        "{folder}/manifest.json: found 11 bytes that are no JSON (Expecting property name enclosed "
        "in double quotes: line 1 column 12 (char 11)); a full disk or a copy cut short leaves "
        "this: restore it, or remove it",
    ),
    "another step": (
        lie(lambda manifest: manifest.update(step=4)),
        "{folder}/manifest.json: is of step 4, its folder is step-00000003",
    ),
    "a hash too few": (
        lie(lambda manifest: manifest["fingerprints"].pop()),
        "{folder}/manifest.json: holds the hashes of 1 ranks, its layout has 2",
    ),
    "a file left out": (
        lie(lambda manifest: manifest["files"].pop("__0_0.distcp")),
        "{folder}/manifest.json: does not name __0_0.distcp, which is there",
    ),
    "another size": (
        lie(lambda manifest: manifest["files"]["__0_0.distcp"].update(bytes=7)),
        "{tensors}: has {bytes} bytes, the manifest says 7",
    ),
    "no files": (
        lie(lambda manifest: manifest.pop("files")),
        "{folder}/manifest.json: not a manifest: TypeError: Manifest.__init__() missing 1 required "
        "positional argument: 'files'",
    ),
}


def test_what_was_damaged_is_refused_on_every_rank_and_changes_nothing(tmp_path: Path) -> None:
    case = Case(mesh=Mesh(), world=2)

    def refused(training: Training, folder: Path) -> str:
        with pytest.raises(DataError) as caught:
            load_checkpoint(folder, training)
        return str(caught.value)

    def life(rank: Rank) -> list[str]:
        engine, training = open_training(case, rank)
        train_step(engine, micro_batches(1), 1)
        for name in DAMAGES:
            save_checkpoint(tmp_path / name, 3, training, {})
            if rank.leads:
                DAMAGES[name][0](step_folder(tmp_path / name, 3))
            dist.barrier()
        before = whole_state(engine)
        messages = [refused(training, step_folder(tmp_path / name, 3)) for name in DAMAGES]
        assert all(map(torch.equal, whole_state(engine), before))
        return messages

    first, second = on_ranks(2, life)
    assert first == second
    for (name, (_, message)), found in zip(DAMAGES.items(), first, strict=True):
        folder = step_folder(tmp_path / name, 3)
        size = (step_folder(tmp_path / "another step", 3) / "__0_0.distcp").stat().st_size
        facts = {"folder": folder, "tensors": folder / "__0_0.distcp", "bytes": size}
        assert found == message.format(**facts, less=size - 1), name


@ranks(2)
def test_a_state_that_is_not_the_one_saved_is_refused(rank: Rank, tmp_path: Path) -> None:
    """One number of rank 1's share is another one, in files that agree with their manifest."""
    engine, training = open_training(Case(mesh=Mesh(), world=2), rank)
    train_step(engine, micro_batches(1), 1)
    folder = save_checkpoint(tmp_path, 3, training, {})
    honest = read_manifest(folder).fingerprints
    moment = engine.optimizer.chained_optimizers[0].optimizer.state.values()
    if rank.index == 1:
        next(iter(moment))["exp_avg"].view(-1)[0] += 1
    save_checkpoint(tmp_path, 3, training, {})
    if rank.leads:
        lie(lambda manifest: manifest.update(fingerprints=honest))(folder)
    dist.barrier()
    with pytest.raises(DataError) as caught:
        load_checkpoint(folder, training)
    assert str(caught.value) == f"{folder}: the state loaded by rank 1 is not the one it saved"


@ranks(2)
def test_the_manifest_names_every_file_and_the_newest_stay(rank: Rank, tmp_path: Path) -> None:
    _, training = open_training(Case(mesh=Mesh(), world=2), rank)
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, training, {"word": "kept"}, keep=2)
    folder = latest_checkpoint(tmp_path)
    assert folder == step_folder(tmp_path, 3)
    assert {p.name for p in tmp_path.iterdir()} == {"latest", "step-00000002", "step-00000003"}
    manifest = read_manifest(folder)
    assert manifest.record == {"word": "kept"}
    files = {p.name: p for p in folder.iterdir() if p.name != "manifest.json"}
    assert {name: wanted["sha256"] for name, wanted in manifest.files.items()} == {
        name: file_hash(path) for name, path in files.items()
    }
    assert {"random.pt", ".metadata", "__0_0.distcp"} <= set(files)
