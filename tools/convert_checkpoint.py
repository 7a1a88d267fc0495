#!/usr/bin/env python3
"""Convert a checkpoint of any kind to any other, with the flags of Megatron-LM's convert.py.

tools/convert_checkpoint.py --model-type GPT --loader hf --saver mcore --load-dir A --save-dir B
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import yaml

from megatron_jobs.config.build import build_settings
from megatron_jobs.convert.source import kind_of
from megatron_jobs.errors import EXIT_DONE, EXIT_USER, DataError, UserError
from megatron_jobs.stages.convert import Config, convert

LOADERS = {
    "auto": (),
    "hf": ("hugging_face",),
    "llama_mistral": ("hugging_face",),
    "mixtral_hf": ("hugging_face",),
    "core": ("checkpoint", "torch_dist"),
    "mcore": ("checkpoint", "torch_dist"),
    "megatron": ("legacy",),
    "legacy": ("legacy",),
    "gguf": ("gguf",),
}
"""Name of a loader -> kinds of --load-dir; those of Megatron-LM's convert.py among them."""
SAVERS = {
    "hf": "hugging_face",
    "core": "checkpoint",
    "mcore": "checkpoint",
    "gguf": "gguf",
    "onnx": "onnx",
}
FLAGS = {
    "source": "load-dir",
    "to": "saver",
    "tokenizer": "tokenizer-model",
    "pad_vocab_to": "make-vocab-size-divisible-by",
    "gguf": "gguf-type",
}
"""Settings of the stage -> flags of another name."""


def main(words: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 something the user can mend."""
    asked = flags().parse_args(words)
    try:
        config, out = settings(asked), save_folder(asked.save_dir)
        found = convert(config, out, quiet if asked.quiet else show)
    except (UserError, DataError) as error:
        print(f"\nconvert_checkpoint: {error}", file=sys.stderr)
        return EXIT_USER
    except OSError as error:
        if error.filename is None:
            raise
        print(f"\nconvert_checkpoint: {error.filename}: {error.strerror}", file=sys.stderr)
        return EXIT_USER
    tell(out, found)
    return EXIT_DONE


def tell(folder: Path, found: dict[str, Any]) -> None:
    """What was done, for people."""
    if found["to"] == "onnx":
        share = found["max_logit_difference_share"]
        print(f"{folder}: logits of onnxruntime differ by {share:.2g} of the largest at most")
        return
    print(f"{folder}: {found['tensors']} tensors, {found['tensors_read_back']} read back")
    if found["left_out"]:
        count, first = len(found["left_out"]), found["left_out"][0]
        print(f"{count} tensors have no place in our model and were left out: {first}, ...")
    for remark in found["remarks"]:
        print(remark)
    if "max_logit_difference" in found:
        print(f"logits differ by {found['max_logit_difference']:.3g} at most")


def flags() -> argparse.ArgumentParser:
    """The flags, by the names that Megatron-LM's users know."""
    parser = argparse.ArgumentParser(
        "convert_checkpoint.py", description=str(__doc__).split("\n")[0]
    )
    add = parser.add_argument
    add("--model-type", choices=["GPT", "BERT", "T5"], default="GPT", help="is found out by itself")
    add("--loader", choices=sorted(LOADERS), default="auto", help="kind of --load-dir")
    add("--saver", choices=sorted(SAVERS), required=True, help="kind of --save-dir")
    add("--load-dir", type=Path, required=True, help="folder, or a GGUF file")
    add("--save-dir", type=Path, required=True)
    add("--tokenizer-model", type=Path, help="folder whose files go along")
    rows = "rows of the embedding, from hf; to hf the padding is left out"
    add("--make-vocab-size-divisible-by", type=int, default=128, help=rows)
    add("--dtype", choices=["fp32", "bf16", "fp16"], help="of the weights; default: as they are")
    for axis in ("tensor", "pipeline", "expert"):
        text = "the ranks that the result is cut for; any others can load it too"
        add(f"--target-{axis}-parallel-size", type=int, default=1, help=text)
    text = "YAML with the settings of the model, of a checkpoint that does not hold them"
    add("--model-config", type=Path, help=text)
    add("--family", help="architecture of Hugging Face's; default: the one it came from")
    add("--gguf-type", choices=["f32", "f16", "bf16", "q8_0", "q4_0"], default="f16")
    text = "logits: run the model beside transformers too; tensors: read back what was written"
    add("--proof", choices=["logits", "tensors"], default="logits", help=text)
    add("--threads", type=int, default=2)
    add("--quiet", action="store_true", help="no word on the way")
    return parser


def settings(asked: argparse.Namespace) -> Config:
    """The settings of the stage; UserError for flags that do not fit each other."""
    if not asked.load_dir.exists():
        raise UserError(f"--load-dir: {asked.load_dir}: no such folder")
    kind, _ = kind_of(asked.load_dir)
    if LOADERS[asked.loader] and kind not in LOADERS[asked.loader]:
        raise UserError(f"--loader {asked.loader}: {asked.load_dir} is of kind {kind}")
    values = {
        "source": asked.load_dir,
        "to": SAVERS[asked.saver],
        "model": model_settings(asked.model_config),
        "tokenizer": asked.tokenizer_model,
        "dtype": asked.dtype,
        "mesh": mesh_settings(asked),
        "pad_vocab_to": asked.make_vocab_size_divisible_by,
        "family": asked.family,
        "gguf": asked.gguf_type,
        "proof": asked.proof,
        "threads": asked.threads,
    }
    config, problems = build_settings(Config, values)
    if config is None or problems:
        raise UserError("\n".join(f"{flag_of(name, asked)}: {rule}" for name, rule in problems))
    return config


def flag_of(name: str, asked: argparse.Namespace) -> str:
    """The flag that a setting came from; of the model's, the file and the setting in it."""
    first, _, rest = name.partition(".")
    if first == "model":
        return f"--model-config: {asked.model_config}: {rest}"
    if first == "mesh":
        return f"--target-{rest}-parallel-size"
    return f"--{FLAGS.get(first, first)}"


def save_folder(place: Path) -> Path:
    """Where the result goes, a/../b being b; UserError for what is there, if only as a link."""
    if ".." in place.parts:
        plain = place.name not in ("", "..")
        place = place.parent.resolve() / place.name if plain else place.resolve()
    if os.path.lexists(place):
        raise UserError(f"--save-dir: {place}: is there already; nothing is overwritten")
    return place


def mesh_settings(asked: argparse.Namespace) -> dict[str, Any]:
    """The ranks that a checkpoint is cut for."""
    axes = ("tensor", "pipeline", "expert")
    mesh = {axis: getattr(asked, f"target_{axis}_parallel_size") for axis in axes}
    return mesh | {"sequence_parallel": mesh["tensor"] > 1 and mesh["expert"] > 1}


def model_settings(file: Path | None) -> dict[str, Any] | None:
    """The mapping of a YAML file."""
    if file is None:
        return None
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"--model-config: {file}: {error}") from error
    if not isinstance(found, dict):
        raise UserError(f"--model-config: {file}: no mapping of settings")
    return found


def quiet(done: int, total: int) -> None:
    """Nothing is said on the way."""


def show(done: int, total: int) -> None:
    """One line that is written over."""
    if sys.stderr.isatty():
        print(f"\r{done / 1e9:.2f} of {total / 1e9:.2f} GB", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
