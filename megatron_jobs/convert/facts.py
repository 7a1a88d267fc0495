"""What can be said of a conversion before it begins: sizes, memory, and what will not work."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from megatron_jobs.config.settings import Problem
from megatron_jobs.convert.hugging_face import fitting_family
from megatron_jobs.convert.matrix import PIECE
from megatron_jobs.convert.proof_memory import proof_bytes
from megatron_jobs.convert.settings import ConversionSettings, TargetKind
from megatron_jobs.convert.source import kind_of, open_config
from megatron_jobs.errors import DataError, UserError

MIB, GIB = 2**20, 2**30
INTERPRETER = 48 * MIB
"""Python with numpy and the settings of a job, measured."""
TENSOR = 6 << 10
"""Kept of each of our tensors while the metadata of all is read back; measured: 2 to 5 kB."""
VOCABULARY = 160 * MIB
"""A tokenizer taken to pieces for a GGUF file or out of one: 600 bytes a token, of 256,000."""
PROOF_LIBRARIES = int(1.25 * GIB)
"""torch, megatron-core and transformers, measured."""
SIZES = ("vocab_size", "seq_len")
TORCH_KINDS = ("torch_dist", "legacy")


@dataclass(frozen=True)
class ConversionFacts:
    """Of one conversion."""

    kind: str
    parameters: int
    model_bytes: int
    """That the proof takes for the model; see `proof_memory`."""
    bytes: int
    """Of all tensors of the source; 0: not known."""
    largest: int
    """Bytes of the largest tensor; 0: not known."""
    threads: int
    proof: str
    to: TargetKind | None
    sizes: dict[str, int | None]
    """vocab_size and seq_len of the model, where known."""
    tensors: int = 0
    """Of ours; 0: not known."""

    @property
    def promised(self) -> dict[str, int | None]:
        """For the jobs that read what is made."""
        return self.sizes | {"parameters": self.parameters, "proof_bytes": self.model_bytes}

    @property
    def stream_bytes(self) -> int:
        """Memory for converting: buffers, and what is kept of each tensor, whatever its size."""
        vocabulary = VOCABULARY if "gguf" in (self.kind, self.to) else 0
        kept = self.tensors * TENSOR
        return INTERPRETER + vocabulary + kept + self.threads * 4 * PIECE

    @property
    def proof_bytes(self) -> int:
        """Memory for the logits: the model in fp32, one library after the other."""
        if self.to == "onnx":  # the model, and the graph that is made of it
            return PROOF_LIBRARIES + 2 * self.model_bytes
        return PROOF_LIBRARIES + self.model_bytes if self.proof == "logits" else 0

    @property
    def peak_bytes(self) -> int:
        """The most at one time."""
        return max(self.stream_bytes, self.proof_bytes)

    def lines(self) -> list[tuple[str, str]]:
        """For people."""
        sizes = f"{self.parameters:,} parameters"
        if self.bytes:
            sizes += f", {self.bytes / GIB:,.2f} GiB, largest tensor {self.largest / MIB:,.1f} MiB"
        buffers = f"{self.stream_bytes / MIB:,.0f} MiB to convert, whatever its tensors' size"
        proof = f"{self.proof_bytes / GIB:,.1f} GiB to compare logits in fp32"
        memory = f"{buffers}; {proof}" if self.proof_bytes else buffers
        return [("source", f"{self.kind}: {sizes}"), ("memory", memory)]


def facts_of(
    config: ConversionSettings, inputs: Mapping[str, Mapping[str, int | None]]
) -> ConversionFacts | None:
    """Of a source that is there, or that a job promises; None where neither says enough."""
    threads, proof = config.threads, config.proof
    promised = inputs.get("source", {})
    count, needed = promised.get("parameters"), promised.get("proof_bytes")
    if count and needed:
        sizes = {name: promised.get(name) for name in SIZES}
        return ConversionFacts("promised", count, needed, 0, 0, threads, proof, config.to, sizes)
    try:
        source = open_config(config)
    except (UserError, DataError, OSError):  # `source_problems` says it
        return None
    each = [matrix.bytes for matrix in source.tensors.values()]
    return ConversionFacts(
        source.kind,
        source.model.parameters(),
        proof_bytes(source.model),
        sum(each),
        max(each, default=0),
        threads,
        proof,
        config.to,
        {name: getattr(source.model, name) for name in SIZES},
        len(each),
    )


def target_kind(config: ConversionSettings) -> TargetKind:
    """What the source becomes."""
    if config.to is not None:
        return config.to
    kind, _ = kind_of(config.source)
    return "hugging_face" if kind in ("checkpoint", *TORCH_KINDS) else "checkpoint"


def source_problems(config: ConversionSettings) -> Iterator[Problem]:
    """What of a source that is there cannot be converted as asked."""
    try:
        source = open_config(config)
        kind = target_kind(config)
    except (UserError, DataError) as error:
        yield "source", str(error)
        return
    yield from _of_no_effect(config, kind)
    if kind == "onnx" and source.kind != "hugging_face":
        found = f"onnx is made of a Hugging Face folder, and {source.path} is of kind {source.kind}"
        yield "to", f"{found}; convert it to hugging_face first"
    if kind == "onnx" and source.part_of:
        found = f"onnx is made of a whole folder, and {source.path} holds more than text"
        yield "to", f"{found}; convert it to hugging_face first, which takes its language part"
    if kind == "checkpoint":
        problems = source.model.mesh_problems(config.mesh)
        yield from (("mesh", f"model.{name}: {sentence}") for name, sentence in problems)
        return
    try:
        fitting_family(source.model, config.family)
    except UserError as error:
        yield "family", str(error)


def _of_no_effect(config: ConversionSettings, kind: TargetKind) -> Iterator[Problem]:
    """Settings that say something of another target."""
    fields = type(config).model_fields
    only = {"family": ("hugging_face", "gguf"), "gguf": ("gguf",), "mesh": ("checkpoint",)}
    for name, kinds in only.items():
        if kind not in kinds and getattr(config, name) != fields[name].default:
            yield name, f"has no effect: the source becomes {kind}; it is for {', '.join(kinds)}"
