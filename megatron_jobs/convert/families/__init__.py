"""The architectures that are known, one file each. To add one: its file, and a line here."""

from megatron_jobs.convert.families.bert import BERT
from megatron_jobs.convert.families.deepseek_v2 import DEEPSEEK_V2
from megatron_jobs.convert.families.deepseek_v3 import DEEPSEEK_V3
from megatron_jobs.convert.families.gemma2 import GEMMA2
from megatron_jobs.convert.families.gemma3 import GEMMA3
from megatron_jobs.convert.families.gpt2 import GPT2
from megatron_jobs.convert.families.gpt_neox import GPT_NEOX
from megatron_jobs.convert.families.llama import LLAMA
from megatron_jobs.convert.families.mistral import MISTRAL
from megatron_jobs.convert.families.mixtral import MIXTRAL
from megatron_jobs.convert.families.olmo2 import OLMO2
from megatron_jobs.convert.families.phi3 import PHI3
from megatron_jobs.convert.families.qwen2 import QWEN2
from megatron_jobs.convert.families.qwen2_moe import QWEN2_MOE
from megatron_jobs.convert.families.qwen3 import QWEN3
from megatron_jobs.convert.families.qwen3_moe import QWEN3_MOE
from megatron_jobs.convert.families.t5 import T5
from megatron_jobs.convert.family import Family

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        LLAMA,
        MISTRAL,
        QWEN2,
        QWEN3,
        PHI3,
        GPT2,
        GEMMA2,
        GEMMA3,
        GPT_NEOX,
        OLMO2,
        MIXTRAL,
        QWEN2_MOE,
        QWEN3_MOE,
        DEEPSEEK_V2,
        DEEPSEEK_V3,
        BERT,
        T5,
    )
}
"""By name; a model of ours is exported as the first that fits it."""
