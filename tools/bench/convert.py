#!/usr/bin/env python3
"""A checkpoint converted as it streams, against `cp` and against loading all of it, in turn.

    tools/bench/convert.py --rounds 5 --work /somewhere/with/room

The source is a random Llama of 1.1 billion parameters in bf16, three safetensors files, dropped
from the page cache before each run; each way is a process of its own, and what it writes is synced.
Beside each run stands a `cp`. Printed are the medians and, of the ratios of each pair, the median
and the range; the anonymous memory is looked at every 20 ms. --hidden and --layers make the model
smaller.
"""

import argparse
import filecmp
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TENSOR = {"1": 1, "2": 2}


def main() -> int:
    """Run every way in turn; print what it took."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", type=Path, default=None, help="a folder with 15 GB of room")
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pause", type=float, default=2, help="seconds before each run")
    parser.add_argument("--ways", nargs="*", default=list(WAYS))
    parser.add_argument("--way", choices=list(WAYS), help=argparse.SUPPRESS)
    parser.add_argument("--check", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.way:
        from megatron_jobs.convert.mapped import told_faults

        with told_faults():
            WAYS[asked.way](asked.work / "source", asked.work / asked.way, asked)
        return 0
    if asked.check:
        check(asked.work)
        return 0
    with tempfile.TemporaryDirectory(dir=asked.work, prefix="bench-convert-") as name:
        asked.work = Path(name)
        call(asked, "--way", "make")
        compare(asked)
    return 0


def call(asked: argparse.Namespace, *words: str) -> None:
    """This file in a process of its own."""
    subprocess.run(command(asked, *words), check=True)


def command(asked: argparse.Namespace, *words: str) -> list[str]:
    """How to start it."""
    sizes = ["--hidden", str(asked.hidden), "--layers", str(asked.layers)]
    others = ["--threads", str(asked.threads), "--work", str(asked.work)]
    return [sys.executable, __file__, *sizes, *others, *words]


def compare(asked: argparse.Namespace) -> None:
    """Each way, `rounds` times, beside a `cp`: after it and before it in turn.

    A disk that slows down after a burst would otherwise favour what is run first.
    """
    ways = [way for way in asked.ways if way not in ("make", "cp")]
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    copies: dict[str, list[float]] = {way: [] for way in ways}
    memory: dict[str, float] = dict.fromkeys(ways, 0.0)
    for number in range(asked.rounds):
        for way in ways:
            for one in (way, "cp")[:: 1 if number % 2 else -1]:
                took, most = run(asked, one)
                (seconds if one == way else copies)[way].append(took)
                memory[way] = max(memory[way], most)
                print(f"round {number}: {one} {took:.2f} s", file=sys.stderr, flush=True)
            shutil.rmtree(asked.work / "cp")
        if number == 0 and set(ways) >= set(WAYS) - {"make", "cp", "load-2"}:
            call(asked, "--check")
        for way in ways:
            shutil.rmtree(asked.work / way)
    for way in ways:
        line = f"{way:7}{statistics.median(seconds[way]):6.2f} s   "
        line += f"cp {statistics.median(copies[way]):6.2f} s x {ratio(seconds[way], copies[way])}"
        load = f"load-{way[-1]}"
        if load in seconds and load != way:
            line += f"   {load} x {ratio(seconds[way], seconds[load])}"
        print(f"{line}   anonymous {memory[way]:.0f} MB", flush=True)


def ratio(one: list[float], other: list[float]) -> str:
    """Of each round: median and range."""
    ratios = [a / b for a, b in zip(one, other, strict=True)]
    return f"{statistics.median(ratios):.2f} [{min(ratios):.2f}..{max(ratios):.2f}]"


def run(asked: argparse.Namespace, way: str) -> tuple[float, float]:
    """(seconds, MB of anonymous memory) of one way, from a cold source to a synced result."""
    os.sync()
    source = asked.work / ("ours-1" if way == "back" else "source")
    for path in source.rglob("*"):
        if path.is_file():
            drop(path)
    out = asked.work / way
    out.mkdir()
    time.sleep(asked.pause)
    if way == "cp":
        files = sorted(source.iterdir())
        words = ["cp", *map(str, files), str(out)]
    else:
        words = command(asked, "--way", way)
    start = time.perf_counter()
    most = watch(subprocess.Popen(words))
    for path in out.rglob("*"):
        if path.is_file():
            sync(path)
    return time.perf_counter() - start, most


def watch(process: subprocess.Popen[bytes]) -> float:
    """Wait for a process; the most anonymous memory that it was seen to have, in MB."""
    most = 0
    while process.poll() is None:
        try:
            text = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            break
        found = [line.split()[1] for line in text.splitlines() if line.startswith("RssAnon")]
        most = max([most, *map(int, found)])
        time.sleep(0.02)
    if process.wait():
        sys.exit(f"bench: {process.args!r} ended with {process.returncode}")
    return most / 1024


def drop(path: Path) -> None:
    """Take a file out of the page cache."""
    handle = os.open(path, os.O_RDONLY)
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(handle)


def sync(path: Path) -> None:
    """Wait until a file is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def make(source: Path, out: Path, asked: argparse.Namespace) -> None:
    """A random Llama; hidden 2048 and 16 layers are 1.1 billion parameters."""
    import ml_dtypes
    import numpy as np

    from megatron_jobs.config.model import ModelConfig
    from megatron_jobs.convert.families.llama import LLAMA
    from megatron_jobs.convert.family import to_theirs
    from megatron_jobs.convert.files import write_files
    from megatron_jobs.convert.leaves import shape_of
    from megatron_jobs.convert.matrix import Matrix, Stored
    from megatron_jobs.convert.safetensors import plan_safetensors

    model = ModelConfig(
        layers=asked.layers, hidden=asked.hidden, heads=asked.hidden // 64,
        kv_heads=asked.hidden // 256, ffn=4 * asked.hidden, vocab_size=32000, seq_len=4096,
    )  # fmt: skip
    random = np.random.default_rng(0)
    tensors: dict[str, Matrix] = {}
    for name in our_names(model.layers):
        bits = random.integers(0, 1 << 16, shape_of(name, model), dtype=np.uint16) & 0xBFFF
        tensors[name] = Stored(bits.view(ml_dtypes.bfloat16))
    plans = plan_safetensors(to_theirs(tensors, LLAMA, model), shard_bytes=10**9)
    write_files(plans, source, key=lambda: "")
    (source / "config.json").write_text(json.dumps(LLAMA.config(model)))


def our_names(layers: int) -> list[str]:
    """Of a Llama's tensors."""
    parts = ("input_layernorm", "self_attention.linear_qkv", "self_attention.linear_proj")
    parts += ("pre_mlp_layernorm", "mlp.linear_fc1", "mlp.linear_fc2")
    inside = [f"decoder.layers.{n}.{part}.weight" for n in range(layers) for part in parts]
    ends = ("embedding.word_embeddings", "decoder.final_layernorm", "output_layer")
    return [*inside, *(f"{end}.weight" for end in ends)]


def ours(source: Path, out: Path, asked: argparse.Namespace) -> None:
    """Streamed."""
    from megatron_jobs.config.mesh import Mesh
    from megatron_jobs.config.model import ModelConfig
    from megatron_jobs.convert.families.llama import LLAMA
    from megatron_jobs.convert.family import to_ours
    from megatron_jobs.convert.files import write_files
    from megatron_jobs.convert.safetensors import open_folder, weight_files
    from megatron_jobs.convert.torch_dist_out import plan_checkpoint
    from megatron_jobs.convert.written import source_key

    model = ModelConfig(**LLAMA.settings(json.loads((source / "config.json").read_text())))
    tensors = to_ours(open_folder(source), LLAMA, model)
    tensor = TENSOR[out.name[-1]]
    mesh = Mesh(tensor=tensor, sequence_parallel=tensor > 1)
    plans = plan_checkpoint(tensors, model, mesh, "bf16")
    key = lambda: source_key(weight_files(source), {"tensor": tensor})  # noqa: E731
    write_files(plans, out / "model", key=key, threads=asked.threads)


def back(source: Path, out: Path, asked: argparse.Namespace) -> None:
    """Our checkpoint, streamed to a Hugging Face folder."""
    from megatron_jobs.config.model import ModelConfig
    from megatron_jobs.convert.families.llama import LLAMA
    from megatron_jobs.convert.family import to_theirs
    from megatron_jobs.convert.files import write_files
    from megatron_jobs.convert.safetensors import plan_safetensors
    from megatron_jobs.convert.torch_dist_in import open_checkpoint
    from megatron_jobs.convert.written import source_key
    from megatron_jobs.runtime.saved_steps import find_checkpoint, read_saved_step

    folder = find_checkpoint(source.parent / "ours-1" / "model")
    model = ModelConfig(**read_saved_step(folder).record["model"])
    tensors, _ = open_checkpoint(folder, model)
    plans = plan_safetensors(to_theirs(tensors, LLAMA, model), shard_bytes=10**9)
    files = sorted(folder.glob("*.distcp"))
    write_files(plans, out / "model", key=lambda: source_key(files, {}), threads=asked.threads)


def load(source: Path, out: Path, asked: argparse.Namespace) -> None:
    """All tensors in memory, joined by torch, a file for each rank."""
    import torch
    from safetensors.torch import load_file

    theirs: dict[str, Any] = {}
    for file in sorted(source.glob("*.safetensors")):
        theirs |= load_file(file)
    ranks = TENSOR[out.name[-1]]
    for rank in range(ranks):
        config = json.loads((source / "config.json").read_text())
        torch.save(joined(theirs, config, rank, ranks), out / f"mp_rank_{rank:02}.pt")


def joined(theirs: Any, config: Any, rank: int, ranks: int) -> dict[str, Any]:
    """What a tensor rank holds of a Llama, as megatron-core fuses it."""
    import torch

    groups, hidden = config["num_key_value_heads"], config["hidden_size"]
    found = {}
    for name in our_names(config["num_hidden_layers"]):
        layer = f"model.layers.{name.split('.')[2]}." if ".layers." in name else ""
        if name.endswith("linear_qkv.weight"):
            parts = [theirs[f"{layer}self_attn.{which}_proj.weight"] for which in "qkv"]
            whole = torch.cat([part.view(groups, -1, hidden) for part in parts], 1)
            found[name] = whole.reshape(-1, hidden).chunk(ranks)[rank].clone()
        elif name.endswith("linear_fc1.weight"):
            parts = [theirs[f"{layer}mlp.{which}_proj.weight"] for which in ("gate", "up")]
            found[name] = torch.cat([part.chunk(ranks)[rank] for part in parts])
        else:
            theirs_name, dim = plain_name(name, layer)
            whole = theirs[theirs_name]
            found[name] = (whole if dim is None else whole.chunk(ranks, dim)[rank]).clone()
    return found


def plain_name(name: str, layer: str) -> tuple[str, int | None]:
    """(their name, the dimension that is cut) of what is not fused."""
    known = {
        "input_layernorm": ("input_layernorm", None),
        "linear_proj": ("self_attn.o_proj", 1),
        "pre_mlp_layernorm": ("post_attention_layernorm", None),
        "linear_fc2": ("mlp.down_proj", 1),
        "word_embeddings": ("model.embed_tokens", 0),
        "final_layernorm": ("model.norm", None),
        "output_layer": ("lm_head", 0),
    }
    theirs, dim = known[name.split(".")[-2]]
    return f"{layer}{theirs}.weight", dim


def check(work: Path) -> None:
    """Every tensor of ours, as torch reads it, is what the other way made; cut in two likewise.

    What was converted back has the bytes of the source.
    """
    import torch
    from torch.distributed.checkpoint import FileSystemReader
    from torch.distributed.checkpoint.state_dict_loader import load as read

    from megatron_jobs.config.model import ModelConfig
    from megatron_jobs.convert.core_names import place_of
    from megatron_jobs.runtime.saved_steps import find_checkpoint, read_saved_step

    for path in (work / "source").glob("*.safetensors"):
        if not filecmp.cmp(path, work / "back" / "model" / path.name, shallow=False):
            sys.exit(f"bench: back: {path.name} differs")
    theirs = torch.load(work / "load-1" / "mp_rank_00.pt", mmap=True)
    for way in ("ours-1", "ours-2"):
        folder = find_checkpoint(work / way / "model")
        reader = FileSystemReader(folder)
        model = ModelConfig(**read_saved_step(folder).record["model"])
        for name, tensor in theirs.items():
            place = place_of(name, model)
            whole = torch.empty((*place.counts, *tensor.shape), dtype=tensor.dtype)
            read({place.key: whole}, storage_reader=reader, no_dist=True)
            found = whole[place.index] if place.index else whole
            if not torch.equal(found.view(torch.int16), tensor.view(torch.int16)):
                sys.exit(f"bench: {way}: {name} differs")


Way = Callable[[Path, Path, argparse.Namespace], None]
WAYS: dict[str, Way] = {
    "cp": make, "ours-1": ours, "back": back, "ours-2": ours, "load-1": load, "load-2": load,
    "make": make,
}  # fmt: skip

if __name__ == "__main__":
    sys.exit(main())
