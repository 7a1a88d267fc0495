"""The architectures that are known, one file each. To add one: its file, and a line here."""

from megatron_jobs.convert.families.gpt2 import GPT2
from megatron_jobs.convert.families.llama import LLAMA
from megatron_jobs.convert.family import Family

FAMILIES: dict[str, Family] = {family.name: family for family in (LLAMA, GPT2)}
"""By name; a model of ours is exported as the first that fits it."""
