"""Is a tokenizer the one that a checkpoint was trained with?"""

from pathlib import Path

from megatron_jobs.checkpoint.manifest import find_checkpoint, read_manifest
from megatron_jobs.text.encoder import check_tokenizer


def check_tokenizer_of(checkpoint: Path, tokenizer: Path) -> None:
    """Raise UserError unless `tokenizer` made the tokens that a checkpoint was trained on.

    Args:
        checkpoint: one checkpoint, or a folder whose latest is taken; one that says nothing of its
            tokenizer agrees with any.
    """
    found = find_checkpoint(checkpoint)
    check_tokenizer(tokenizer, read_manifest(found).record.get("tokenizer_hash"), str(found))
