#!/usr/bin/env python3
"""Convert a checkpoint to Hugging Face's form or back, with the flags of Megatron-LM's convert.py.

tools/convert_checkpoint.py --model-type GPT --loader hf --saver mcore --load-dir A --save-dir B
"""

import argparse
import sys
from pathlib import Path

from megatron_jobs.config.mesh import Mesh
from megatron_jobs.errors import EXIT_DONE, EXIT_USER, DataError, UserError
from megatron_jobs.stages.convert import Config, convert

HUGGING_FACE = {"hf", "llama_mistral"}
"""Names of loaders and savers of Hugging Face folders; llama_mistral is Megatron-LM's."""
OURS = {"core", "mcore"}


def main(words: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 something the user can mend."""
    asked = flags().parse_args(words)
    try:
        check(asked)
        config = Config(
            source=asked.load_dir,
            tokenizer=asked.tokenizer_model,
            dtype=asked.dtype,
            pad_vocab_to=asked.make_vocab_size_divisible_by,
        )
        found = convert(config, asked.save_dir)
    except (UserError, DataError) as error:
        print(f"convert_checkpoint: {error}", file=sys.stderr)
        return EXIT_USER
    print(f"{asked.save_dir}: logits differ by {found['max_logit_difference']:.3g} at most")
    return EXIT_DONE


def flags() -> argparse.ArgumentParser:
    """The flags, by the names that Megatron-LM's users know."""
    parser = argparse.ArgumentParser(
        "convert_checkpoint.py", description=str(__doc__).split("\n")[0]
    )
    names = sorted(HUGGING_FACE | OURS)
    parser.add_argument("--model-type", choices=["GPT"], default="GPT")
    parser.add_argument("--loader", choices=names, required=True, help="kind of --load-dir")
    parser.add_argument("--saver", choices=names, required=True, help="kind of --save-dir")
    parser.add_argument("--load-dir", type=Path, required=True)
    parser.add_argument("--save-dir", type=Path, required=True)
    parser.add_argument("--tokenizer-model", type=Path, help="folder whose files go along")
    parser.add_argument(
        "--make-vocab-size-divisible-by",
        type=int,
        default=128,
        help="rows of the embedding, from hf; to hf the padding is left out",
    )
    parser.add_argument("--dtype", choices=["fp32", "bf16", "fp16"], default="fp32")
    for axis in ("tensor", "pipeline", "expert"):
        text = "any such layout reads the result; checked against the model only"
        parser.add_argument(f"--target-{axis}-parallel-size", type=int, default=1, help=text)
    return parser


def check(asked: argparse.Namespace) -> None:
    """Raise UserError for what cannot be converted."""
    if (asked.loader in OURS) == (asked.saver in OURS):
        raise UserError(f"--loader {asked.loader} --saver {asked.saver}: one must be hf")
    if not asked.load_dir.is_dir():
        raise UserError(f"--load-dir: {asked.load_dir}: no such folder")
    if asked.save_dir.exists():
        raise UserError(f"--save-dir: {asked.save_dir}: is there already; nothing is overwritten")
    hugging_face = (asked.load_dir / "config.json").exists()
    if hugging_face != (asked.loader in HUGGING_FACE):
        kind = "a Hugging Face folder" if hugging_face else "no Hugging Face folder"
        raise UserError(f"--loader {asked.loader}: {asked.load_dir} is {kind}")
    if asked.make_vocab_size_divisible_by < 1:
        found = f"found {asked.make_vocab_size_divisible_by}, must be at least 1"
        raise UserError(f"--make-vocab-size-divisible-by: {found}")
    check_layout(asked, hugging_face)


def check_layout(asked: argparse.Namespace, hugging_face: bool) -> None:
    """Raise UserError when the target layout cannot cut the model."""
    from megatron_jobs.checkpoint.hugging_face import read_settings
    from megatron_jobs.checkpoint.model import model_of

    if hugging_face:
        _, model = read_settings(asked.load_dir, asked.make_vocab_size_divisible_by)
    else:
        model = model_of(asked.load_dir)
    mesh = Mesh(
        tensor=asked.target_tensor_parallel_size,
        pipeline=asked.target_pipeline_parallel_size,
        expert=asked.target_expert_parallel_size,
    )
    for setting, sentence in model.mesh_problems(mesh):
        raise UserError(f"{setting}: {sentence}")


if __name__ == "__main__":
    sys.exit(main())
