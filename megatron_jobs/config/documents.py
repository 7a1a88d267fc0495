"""Whether the documents of one sample know of each other."""

from megatron_jobs.config.settings import Settings


class DocumentResets(Settings):
    """What starts anew with each document of a sample.

    In packed samples each piece is a document; in concatenated ones a document ends with the
    tokenizer's end of document (EOD).
    """

    reset_attention_mask: bool | None = None
    """Let no token attend to another document's (Megatron-LM's --reset-attention-mask); null: where
    the index is packed."""
    reset_position_ids: bool | None = None
    """Count positions from 0 in each document (--reset-position-ids); null: where the index is
    packed. Learned positions read them; rotary ones are relative and do not need it."""
