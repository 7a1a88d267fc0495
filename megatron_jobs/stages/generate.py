"""Continuations of prompts by a trained model."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.precision import Precision
from megatron_jobs.config.resources import Resources
from megatron_jobs.config.sampling import Sampling
from megatron_jobs.config.settings import InputPath, Problem, Settings
from megatron_jobs.errors import UserError
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.stages import Facts
from megatron_jobs.stages.decoders import check_decoder, decoder_problems

OUTPUTS = ("continuations.txt", "continuations.jsonl")
RESOURCES = Resources()
PRELOAD = ("megatron_jobs.infer.generate", "megatron_jobs.checkpoint.model")
SHOW = "continuations.txt"
WHAT = "generate continues"


class Config(Settings):
    """Which model continues what, and how."""

    checkpoint: InputPath
    """One checkpoint, or a folder whose latest is taken."""
    tokenizer: InputPath
    """Folder with the tokenizer.json of its tokens."""
    prompts: list[str]
    tokens: int = 64
    """Tokens that follow each prompt, at most; an end-of-document token ends it before."""
    sampling: Sampling = Sampling()
    seed: int = 0
    """The same seed gives the same texts."""
    precision: Precision = "fp32"

    def problems(self) -> Iterator[Problem]:
        """Nothing to continue."""
        if not self.prompts:
            yield "prompts", "found nothing, must name at least one text"
        for place, prompt in enumerate(self.prompts):
            if not prompt:
                yield f"prompts.{place}", "is empty; a text needs a beginning"
        if self.tokens < 1:
            yield "tokens", f"{self.tokens} is below 1"


def foresee(config: Config, inputs: Mapping[str, Facts]) -> Iterator[Problem]:
    """A checkpoint that is there and holds no decoder."""
    yield from decoder_problems(config.checkpoint, WHAT)


def run(config: Config, rank: Rank, folder: Path) -> dict[str, float]:
    """Continue each prompt on the leader; texts go to continuations.txt and .jsonl."""
    from megatron_jobs.runtime.files import write_text

    if not rank.leads:
        return {}
    records = list(_continuations(config, folder))
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
    write_text(folder / "continuations.jsonl", "".join(lines))
    texts = [f"> {record['prompt']}\n{record['text']}\n" for record in records]
    write_text(folder / "continuations.txt", "\n".join(texts))
    seconds = sum(record["seconds"] for record in records)
    tokens = sum(record["tokens"] for record in records)
    return {"tokens": tokens, "tokens_per_second": tokens / seconds}


def _continuations(config: Config, folder: Path) -> Iterator[dict[str, Any]]:
    import time

    from megatron_jobs.checkpoint.model import model_of, open_model
    from megatron_jobs.checkpoint.tokenizer import check_tokenizer_of
    from megatron_jobs.config.mesh import Mesh
    from megatron_jobs.infer.generate import continue_prompt
    from megatron_jobs.parallel.groups import close, connect, open_groups
    from megatron_jobs.runtime.rank import ALONE
    from megatron_jobs.text.encoder import load_encoder

    check_decoder(config.checkpoint, WHAT)
    encoder, model = load_encoder(config.tokenizer), model_of(config.checkpoint)
    check_tokenizer_of(config.checkpoint, config.tokenizer)
    starts = encoder.encode(config.prompts)
    check_prompts(starts, config.tokens, model)
    connect(ALONE, folder)
    open_groups(Mesh(), 0)
    (chunk,) = open_model(config.checkpoint, Mesh(), config.precision)
    stop = frozenset() if encoder.eod is None else frozenset({encoder.eod})
    for place, (prompt, start) in enumerate(zip(config.prompts, starts, strict=True)):
        began = time.perf_counter()
        ids = continue_prompt(
            chunk, start, vocab_size=model.vocab_size, tokens=config.tokens,
            sampling=config.sampling, seed=config.seed + place, stop=stop,
        )  # fmt: skip
        seconds = time.perf_counter() - began
        text = encoder.tokenizer.decode(start + ids, skip_special_tokens=True)
        yield {"prompt": prompt, "text": text, "tokens": len(ids), "seconds": seconds}
    close()


def check_prompts(starts: Sequence[Sequence[int]], tokens: int, model: ModelConfig) -> None:
    """Raise UserError when one is too long to be continued, or of another vocabulary."""
    for place, start in enumerate(starts):
        if len(start) + tokens > model.seq_len:
            found = f"{len(start)} tokens and {tokens} to follow"
            rule = f"the model was trained on {model.seq_len}; ask for fewer"
            raise UserError(f"prompts.{place}: {found}, {rule}")
        if max(start, default=0) >= model.vocab_size:
            found = f"token {max(start)} of its tokenizer, the model knows {model.vocab_size}"
            raise UserError(f"prompts.{place}: {found}; give the tokenizer of the model")
