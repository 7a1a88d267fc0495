"""AdamW on megatron-core's distributed optimizer, and the learning rate as a function of step."""
