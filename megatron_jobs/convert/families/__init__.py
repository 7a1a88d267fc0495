"""The architectures that are known, one file each. To add one: its file, and a line here."""

from megatron_jobs.convert.families.gemma2 import GEMMA2
from megatron_jobs.convert.families.gemma3 import GEMMA3
from megatron_jobs.convert.families.gpt2 import GPT2
from megatron_jobs.convert.families.gpt_neox import GPT_NEOX
from megatron_jobs.convert.families.llama import LLAMA
from megatron_jobs.convert.families.olmo2 import OLMO2
from megatron_jobs.convert.family import Family

FAMILIES: dict[str, Family] = {
    family.name: family for family in (LLAMA, GPT2, GEMMA2, GEMMA3, GPT_NEOX, OLMO2)
}
"""By name; a model of ours is exported as the first that fits it."""
