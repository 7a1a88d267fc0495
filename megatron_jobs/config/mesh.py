"""How the ranks of a job are laid out by named axes."""

from collections.abc import Iterator
from typing import Literal

from pydantic import PositiveInt

from megatron_jobs.config.settings import Problem, Settings


class Mesh(Settings):
    """Degrees of parallelism. Data parallelism takes whatever ranks the others leave."""

    tensor: PositiveInt = 1
    """Ranks over which each matrix is cut."""
    pipeline: PositiveInt = 1
    """Stages of consecutive layers, one a rank."""
    virtual: PositiveInt = 1
    """Blocks of layers on each pipeline stage; over 1 the stages take turns (interleaved 1F1B)."""
    layers: tuple[PositiveInt, ...] | None = None
    """Layers of each block, from the model's first; by default as equal as they can be."""
    context: PositiveInt = 1
    """Ranks over which each sequence is cut."""
    expert: PositiveInt = 1
    """Ranks over which the experts of a layer are dealt out; they come from the data ranks."""
    expert_tensor: PositiveInt = 1
    """Ranks over which each expert's matrices are cut."""
    sequence_parallel: bool = False
    """Cut activations between tensor-parallel parts along the sequence too: less memory."""
    overlap: bool = False
    """Reduce gradients and gather parameters while computing: worth it on GPUs."""
    recompute: Literal["none", "attention", "layer"] = "none"
    """What is computed again in the backward pass instead of being kept."""

    @property
    def blocks(self) -> int:
        """Of consecutive layers, on all pipeline stages."""
        return self.pipeline * self.virtual

    def block_layers(self, layers: int) -> tuple[int, ...]:
        """How many of a model's layers each block has, from the first; they may be none.

        Block b is on stage b % pipeline. Those with a layer more follow the first, which has the
        embedding too and gets one after all others but the last: that has the output layer.
        """
        if self.layers is not None:
            return self.layers
        fewest, more = divmod(layers, self.blocks)
        start = 1 if more < self.blocks - 1 else 0
        return tuple(fewest + (start <= block < start + more) for block in range(self.blocks))

    def stage_layers(self, layers: int) -> tuple[int, ...]:
        """How many of a model's layers each pipeline stage has."""
        counts = self.block_layers(layers)
        return tuple(sum(counts[stage :: self.pipeline]) for stage in range(self.pipeline))

    def layer_problems(self, layers: int) -> Iterator[Problem]:
        """Layers that are too few, or not as many as given; the name is `layers`."""
        if self.layers is None:
            if layers < self.blocks:
                yield "layers", f"{layers} layers cannot be cut into {self._block_product()} blocks"
        elif len(self.layers) == self.blocks and sum(self.layers) != layers:
            said = " + ".join(map(str, self.layers))
            yield "layers", f"{layers}, but mesh.layers has {said} = {sum(self.layers)}"

    def layout(self, layers: int) -> dict[str, int | bool | str]:
        """What a checkpoint of so many layers notes; `layers` only where blocks have unequal ones.

        It is what was dealt out, given or not; without it all is as before there were such blocks.
        """
        found: dict[str, int | bool | str] = self.model_dump(exclude={"layers"})
        counts = self.block_layers(layers)
        return found | ({"layers": "+".join(map(str, counts))} if len(set(counts)) > 1 else {})

    def data(self, world: int) -> int:
        """Data-parallel ranks among `world`; each reads other sequences."""
        return world // self.model_ranks

    @property
    def model_ranks(self) -> int:
        """Ranks that hold one copy of the model."""
        return self.tensor * self.pipeline * self.context

    def problems(self) -> Iterator[Problem]:
        """Axes that cannot work together, whatever the model."""
        if self.virtual > 1 and self.pipeline == 1:
            yield "virtual", f"{self.virtual} needs pipeline > 1; there is one stage to interleave"
        if self.layers is not None and len(self.layers) != self.blocks:
            yield "layers", f"{len(self.layers)} blocks of layers, must be {self._block_product()}"
        if self.sequence_parallel and self.tensor == 1:
            yield "sequence_parallel", "needs tensor > 1: it cuts along the tensor ranks"
        if self.expert * self.expert_tensor > 1 and self.tensor > 1 and not self.sequence_parallel:
            yield "sequence_parallel", "experts on tensor ranks need sequence_parallel: true"

    def rank_problems(self, world: int) -> Iterator[Problem]:
        """What does not fit `world` ranks; names are relative to the mesh."""
        if world % self.model_ranks:
            axes = f"tensor x pipeline x context = {self._product()}"
            above = (world // self.model_ranks + 1) * self.model_ranks
            yield "tensor", f"{axes} does not divide {world} ranks; the next that works: {above}"
            return
        experts = self.expert * self.expert_tensor * self.pipeline
        if self.expert * self.expert_tensor > 1 and world % experts:
            axes = f"expert x expert_tensor x pipeline = {experts}"
            yield "expert", f"{axes} does not divide {world} ranks"

    def batch_problems(self, global_size: int, micro_size: int, world: int) -> Iterator[Problem]:
        """Batch sizes that do not fit; names are those of the batch's settings."""
        unit = micro_size * self.data(world)
        if unit == 0:
            return  # too few ranks: said by rank_problems
        rest = global_size % unit
        if rest or global_size < 1:
            rule = f"a multiple of micro_size x data = {micro_size} x {self.data(world)} = {unit}"
            above = global_size - rest + unit
            yield "global_size", f"{global_size} is not {rule}; the next that is: {above}"
        elif self.virtual > 1 and (global_size // unit) % self.pipeline:
            rule = f"a multiple of pipeline = {self.pipeline}, as virtual > 1 needs"
            yield "global_size", f"gives {global_size // unit} micro batches a rank, not {rule}"

    def sequence_problems(self, seq_len: int) -> Iterator[Problem]:
        """A sequence length that cannot be cut; the name is `seq_len`."""
        if self.context > 1 and seq_len % (2 * self.context):
            rule = f"{2 * self.context} pieces, two for each context rank"
            yield "seq_len", f"{seq_len} cannot be cut into {rule}"
        elif self.sequence_parallel and (seq_len // self.context) % self.tensor:
            rule = f"{self.tensor} tensor ranks (sequence_parallel)"
            yield (
                "seq_len",
                f"{seq_len} over {self.context} context ranks cannot be cut over {rule}",
            )

    def _block_product(self) -> str:
        return f"pipeline x virtual = {self.pipeline} x {self.virtual} = {self.blocks}"

    def _product(self) -> str:
        return f"{self.tensor} x {self.pipeline} x {self.context} = {self.model_ranks}"
