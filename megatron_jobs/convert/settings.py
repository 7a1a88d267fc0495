"""What a conversion is told."""

from typing import Literal

from pydantic import PositiveFloat, PositiveInt

from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.precision import Precision
from megatron_jobs.config.settings import InputPath, Settings

TargetKind = Literal["checkpoint", "hugging_face", "gguf", "onnx"]
GgufFormat = Literal["f32", "f16", "bf16", "q8_0", "q4_0"]


class ConversionSettings(Settings):
    """What is converted to what."""

    source: InputPath
    """A checkpoint of ours or of megatron-core (or a folder whose latest is taken), Megatron-LM's
    mp_rank_XX folders, a Hugging Face folder, or a GGUF file (of a
    model in several files any of them, or their folder)."""
    to: TargetKind | None = None
    """What folder `model` becomes; null: hugging_face from any of Megatron's, else checkpoint.
    onnx is made of a Hugging Face folder, in fp32, not streamed, and needs the extra `onnx`."""
    model: ModelConfig | None = None
    """Of a checkpoint that does not hold its settings: those of the model."""
    tokenizer: InputPath | None = None
    """Folder of the tokenizer (or its tokenizer.json) whose files go along; null: the one that lies
    with the source."""
    dtype: Precision | None = None
    """Of the weights written; null: each as it is. Rounded to nearest even."""
    mesh: Mesh = Mesh()
    """Of a checkpoint: the ranks whose parts it is cut into; any others can load it too."""
    pad_vocab_to: PositiveInt = 128
    """Of a Hugging Face model or a GGUF file: the embedding gets a multiple of this many rows, for
    tensor ranks must divide them. The way back leaves the padding out."""
    family: str | None = None
    """Architecture of Hugging Face's that is written; null: the one the model came from, or the
    first that fits."""
    gguf: GgufFormat = "f16"
    """Number format of the matrices of a GGUF file."""
    shard_gb: PositiveFloat = 5.0
    """Largest file of a Hugging Face folder, in 10^9 bytes."""
    proof: Literal["logits", "tensors"] = "logits"
    """tensors: what was written is read back and compared. logits: the model is run too, beside
    `transformers`, in fp32; this needs memory for the whole model."""
    threads: PositiveInt = 2
    """That write files, each one at a time; no more than the job's cpus are of use."""
