"""What the generate stage refuses before it opens a model."""

import pytest

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.errors import UserError
from megatron_jobs.stages.generate import check_prompts

MODEL = ModelConfig(layers=1, hidden=8, heads=2, vocab_size=100, seq_len=16)


def test_prompts_that_fit() -> None:
    check_prompts([[99] * 6, [0]], 10, MODEL)


@pytest.mark.parametrize(
    ("starts", "message"),
    [
        (
            [[1], [2] * 7],
            r"prompts\.1: 7 tokens and 10 to follow, the model was trained on 16; ask for fewer",
        ),
        (
            [[1, 100]],
            r"prompts\.0: token 100 of its tokenizer, the model knows 100; give the tokenizer of",
        ),
    ],
)
def test_prompts_that_do_not(starts: list[list[int]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_prompts(starts, 10, MODEL)
