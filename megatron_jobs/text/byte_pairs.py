"""A byte-level BPE tokenizer trained on texts, in the files that transformers loads."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from megatron_jobs.runtime.files import write_json

BYTES = 256
NO_LIMIT = 10**30
"""What transformers writes for a tokenizer without a longest text."""


def train_byte_pairs(
    texts: Iterable[str], *, vocab_size: int, special: Sequence[str], least_count: int
) -> Tokenizer:
    """A tokenizer with at most `vocab_size` tokens; equal texts give equal tokenizers.

    Args:
        special: tokens with the first ids, never cut; the bytes follow, then the merges.
        least_count: times that a pair must occur to be merged.
    Source: Sennrich et al. 2016, arXiv:1508.07909; on bytes as in GPT-2.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=least_count,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path, *, eod: str, pad: str) -> None:
    """Write what transformers.AutoTokenizer.from_pretrained reads.

    `eod` begins and ends texts, as GPT-2's <|endoftext|> does.
    """
    roles = {"bos_token": eod, "eos_token": eod, "pad_token": pad}
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "special_tokens_map.json", roles)
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": NO_LIMIT,
            **roles,
        },
    )
