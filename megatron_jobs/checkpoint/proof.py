"""The proof that a model of ours and one of transformers are the same, by what they answer.

B sequences, T positions, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from megatron_jobs.checkpoint.diagnosis import Models, diagnose, heads_differ, wrong_experts
from megatron_jobs.checkpoint.model import model_of, open_model
from megatron_jobs.checkpoint.prompts import Prompt, fixed_prompts
from megatron_jobs.checkpoint.trace import our_trace, their_trace
from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.precision import Precision
from megatron_jobs.convert.hugging_face import CONFIG
from megatron_jobs.errors import DataError
from megatron_jobs.model.build import DTYPES
from megatron_jobs.runtime.files import read_json

TOLERANCE = 1e-4
"""Largest difference of logits in fp32, relative to the largest logit if that is over 1, that is
put down to rounding."""
CLASSES = {
    "decoder": "AutoModelForCausalLM",
    "encoder": "AutoModelForMaskedLM",
    "encoder_decoder": "AutoModelForSeq2SeqLM",
}
"""What of transformers answers with logits."""
LANGUAGE = r"^(?:model\.)?language_model\.(?:model\.)?(?!lm_head)"
LANGUAGE_PARTS = {"gemma3": "Gemma3ForCausalLM"}
"""model_type of a model of more than text -> what of transformers is its language part."""
LANGUAGE_NAMES = {LANGUAGE: "model.", r"^language_model\.lm_head": "lm_head"}
"""Names of its tensors in the whole -> in that part; older files and newer differ."""


@dataclass(frozen=True)
class Answer:
    """How two models' logits for one prompt compare."""

    prompt: str
    tokens: int
    max_logit_difference: float
    mean_logit_difference: float
    max_logit: float
    """The largest of theirs."""
    same_greedy_share: float
    """Of positions, where the most likely token is the same."""
    perplexity: float
    """Of theirs, on the prompt itself."""
    perplexity_difference: float
    """Ours less theirs."""

    def is_same(self) -> bool:
        """Whether the difference is put down to rounding; a nan is not."""
        return self.max_logit_difference <= TOLERANCE * max(1.0, self.max_logit)


@dataclass(frozen=True)
class Proof:
    """What was found."""

    answers: tuple[Answer, ...]
    faults: tuple[str, ...] = ()
    """Where the models differ first and why; nothing when they are the same."""

    def is_same(self) -> bool:
        """Whether both compute the same."""
        return not self.faults

    def numbers(self) -> dict[str, float]:
        """The worst of all prompts, for a receipt."""
        tokens = sum(answer.tokens for answer in self.answers)
        greedy = sum(answer.same_greedy_share * answer.tokens for answer in self.answers)
        worst = max(self.answers, key=lambda answer: abs(answer.perplexity_difference))
        return {
            "prompts": len(self.answers),
            "max_logit_difference": max(a.max_logit_difference for a in self.answers),
            "mean_logit_difference": max(a.mean_logit_difference for a in self.answers),
            "max_logit": max(answer.max_logit for answer in self.answers),
            "same_greedy_share": greedy / tokens,
            "max_perplexity_difference": worst.perplexity_difference,
        }

    def record(self) -> dict[str, Any]:
        """All of it, for comparison.json."""
        answers = [asdict(answer) for answer in self.answers]
        return {**self.numbers(), "answers": answers, "faults": list(self.faults)}

    def check(self, place: Path) -> None:
        """Raise DataError, naming `place` and the faults, unless both compute the same."""
        if self.faults:
            found = self.numbers()
            rule = f"logits differ by {found['max_logit_difference']:.3g}"
            rule += f" (largest {found['max_logit']:.3g})"
            words = "; ".join(self.faults)
            raise DataError(f"{place}: {rule}; the two models are not the same: {words}")


def prove(
    checkpoint: Path, hugging_face: Path, *, dtype: Precision, prompts: Sequence[Prompt] = ()
) -> Proof:
    """Compare a checkpoint of ours with a Hugging Face folder; groups are open on one rank.

    Args:
        checkpoint: one checkpoint, or a folder whose latest is taken.
        dtype: of the weights that a conversion wrote: both sides are rounded to it, so that the
            side that was its source is rounded as the conversion did. Computed is in fp32.
        prompts: what both are asked; else `fixed_prompts`.
    Only one of the two is in memory at a time; see `convert.proof_memory`.
    """
    model = model_of(checkpoint)

    def ours() -> Any:
        (chunk,) = open_model(checkpoint, Mesh(), "fp32")
        return rounded(chunk, dtype)

    def theirs() -> Any:
        return rounded(open_theirs(hugging_face, model), dtype)

    asked = prompts or fixed_prompts(hugging_face, model.vocab_size, model.seq_len)
    return prove_models(Models(ours, theirs, model), asked)


def prove_models(models: Models, prompts: Sequence[Prompt]) -> Proof:
    """Compare two models that are opened when they are asked for."""
    tokens = [prompt.tokens for prompt in prompts]
    own, other = models.look(
        lambda chunk: our_trace(chunk, models.model, tokens),
        lambda theirs: their_trace(theirs, tokens),
    )
    answers = tuple(
        compare(prompt, one, two, models.model)
        for prompt, one, two in zip(prompts, own.logits, other.logits, strict=True)
    )
    beside = bool(wrong_experts(own, other)) or heads_differ(own, other)
    if all(answer.is_same() for answer in answers) and not beside:
        return Proof(answers)
    return Proof(answers, tuple(diagnose(models, own, other, tokens[0])))


def open_theirs(folder: Path, model: ModelConfig) -> Any:
    """A model of transformers in fp32 whose attention is plain, read from a folder alone.

    Of one of more than text the language part.
    """
    import transformers

    part = LANGUAGE_PARTS.get(read_json(folder / CONFIG).get("model_type", ""))
    kind = getattr(transformers, part or _class_of(model))
    return kind.from_pretrained(
        folder,
        key_mapping=LANGUAGE_NAMES if part else None,
        dtype=torch.float32,
        attn_implementation="eager",
        local_files_only=True,
        trust_remote_code=False,
    )


def _class_of(model: ModelConfig) -> str:
    """What of transformers has all heads of a model."""
    if model.kind != "encoder" or not model.sentence_head:
        return CLASSES[model.kind] if model.token_head else "AutoModel"
    return "AutoModelForPreTraining" if model.token_head else "AutoModelForNextSentencePrediction"


@torch.no_grad()
def rounded(module: Any, dtype: Precision) -> Any:
    """A model in fp32 whose weights are numbers of another format; what is no weight stays."""
    if dtype != "fp32":
        for value in module.state_dict().values():
            if isinstance(value, Tensor) and value.is_floating_point():
                value.copy_(value.to(DTYPES[dtype]))
    return module


def compare(prompt: Prompt, ours_BTV: Tensor, theirs_BTV: Tensor, model: ModelConfig) -> Answer:
    """How the logits of one prompt compare; rows of theirs for no token are left out."""
    theirs_BTV = theirs_BTV[..., : model.vocab_size]
    assert ours_BTV.shape == theirs_BTV.shape, f"{ours_BTV.shape} against {theirs_BTV.shape}"
    apart = (ours_BTV - theirs_BTV).abs()
    same = (ours_BTV.argmax(-1) == theirs_BTV.argmax(-1)).float().mean()
    ours, theirs = (perplexity(x, prompt.tokens, model) for x in (ours_BTV, theirs_BTV))
    return Answer(
        prompt=prompt.name,
        tokens=prompt.tokens.numel(),
        max_logit_difference=float(apart.max()),
        mean_logit_difference=float(apart.mean()),
        max_logit=float(theirs_BTV.abs().max()),
        same_greedy_share=float(same),
        perplexity=theirs,
        perplexity_difference=ours - theirs,
    )


def perplexity(logits_BTV: Tensor, tokens_BT: Tensor, model: ModelConfig) -> float:
    """Of the tokens under the logits: of the next ones, for an encoder of those themselves."""
    if model.kind != "encoder" and tokens_BT.size(1) > 1:
        logits_BTV, tokens_BT = logits_BTV[:, :-1], tokens_BT[:, 1:]
    loss = functional.cross_entropy(logits_BTV.flatten(0, 1), tokens_BT.flatten())
    return float(loss.exp())
