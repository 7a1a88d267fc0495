"""Our checkpoints, at any mesh, planned as files: what megatron-core's ranks would have saved.

ROOT/step-00000000/__RANK_N.distcp    records of torch.save, one behind the other
ROOT/step-00000000/.metadata          where each piece of each tensor lies
ROOT/step-00000000/metadata.json, manifest.json
ROOT/latest
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, partial
from typing import Any

from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.precision import Precision
from megatron_jobs.convert.core_names import LAYER, Place, place_of
from megatron_jobs.convert.cuts import first_rank, pieces_of
from megatron_jobs.convert.files import FilePlan, Item
from megatron_jobs.convert.leaves import in_format, shape_of
from megatron_jobs.convert.matrix import DTYPES, Matrix
from megatron_jobs.convert.torch_dist_metadata import TORCH, Stored, metadata_pickle
from megatron_jobs.convert.torch_zip import ALIGNMENT, object_record, tensor_record
from megatron_jobs.convert.written import Written
from megatron_jobs.errors import ConfigError, DataError
from megatron_jobs.runtime.saved_steps import LATEST, NAME

FILE_BYTES = 512 << 20
"""A rank's pieces are dealt out to files of about this size, so that threads can share them."""
FORMAT = {"sharded_backend": "torch_dist", "sharded_backend_version": 1}
CONTENT = {
    "distrib_optim_sharding_type": "fully_reshardable",
    "distrib_optim_fully_reshardable_mem_efficient": True,
    "singleton_local_shards": False,
    "chained_optim_avoid_prefix": True,
}
"""How an optimizer's state would be laid out, which megatron-core asks of every checkpoint."""
LINEAR = re.compile(r"(?P<module>.*\.linear_\w+)\.weight")
"""Modules that keep an extra state, always None, beside their weights."""


def plan_checkpoint(
    tensors: Mapping[str, Matrix],
    model: ModelConfig,
    mesh: Mesh,
    dtype: Precision | None,
    *,
    record: Mapping[str, Any] | None = None,
    step: int = 0,
) -> list[FilePlan]:
    """A folder of checkpoints that holds one, of weights alone, as a run on `mesh` would cut it.

    Args:
        tensors: whole, under our names; all of the model's, and no others.
        dtype: of the weights written; None: each as it is, `record` having a `precision` to note.
        record: more of what a training notes beside model and precision: tokenizer_hash.
        step: in whose name it stands.
    Raises: ConfigError when the mesh cannot cut the model; DataError for a tensor of another shape.
    """
    problems = [*mesh.problems(), *model.mesh_problems(mesh)]
    if problems:
        raise ConfigError("mesh", [(f"mesh: {name}", text) for name, text in problems])
    folder = f"step-{step:08}"
    files = _Files(folder)
    _add_objects(files, tensors, model, mesh)
    for name, matrix in tensors.items():
        kept = in_format(name, matrix, DTYPES[dtype]) if dtype else matrix
        _add_tensor(files, name, kept, model, mesh)
    noted = {"model": model.model_dump(mode="json"), "precision": dtype, "tokenizer_hash": None}
    noted |= dict(record or {})
    layout = mesh.layout(model.layers)
    manifest = partial(manifest_bytes, folder, step=step, layout=layout, record=noted)
    return [
        *files.plans(),
        FilePlan(f"{folder}/.metadata", [Item(matrix=metadata_pickle(files.stored))]),
        FilePlan(f"{folder}/metadata.json", [Item(json.dumps(FORMAT).encode())]),
        FilePlan(f"{folder}/{NAME}", summary=manifest),
        FilePlan(LATEST, [Item(f"{folder}\n".encode())]),
    ]


def manifest_bytes(
    folder: str,
    written: Mapping[str, Written],
    *,
    step: int,
    layout: Mapping[str, int | bool | str],
    record: Mapping[str, Any],
) -> bytes:
    """The manifest, as `checkpoint.manifest` reads it, of the files that stand in `folder`.

    No rank has had this state, so the layout is one of 0 ranks with no rank's fingerprint.
    """
    inside = {name: facts for name, facts in written.items() if name.startswith(f"{folder}/")}
    value = {
        "step": step,
        "layout": {"world": 0, **layout},
        "record": dict(record),
        "fingerprints": [],
        "files": {
            name.removeprefix(f"{folder}/"): {"bytes": facts.bytes, "sha256": facts.sha256}
            for name, facts in sorted(inside.items())
        },
    }
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


@cache
def _padding(count: int) -> Item:
    return Item(bytes(count))


class _Files:
    """The files of all ranks, as far as they are planned."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.files: dict[int, list[list[Item]]] = {}
        self.sizes: dict[int, int] = {}
        self.stored: list[Stored] = []

    def add(self, rank: int, item: Item, **place: Any) -> None:
        """Put a record behind the last of its rank, aligned; `place`: what it is a piece of."""
        files = self.files.setdefault(rank, [[]])
        end = self.sizes.get(rank, 0)
        at = end + -end % ALIGNMENT
        if at and at + item.bytes > FILE_BYTES:
            files.append([])
            at = end = 0
        files[-1] += [_padding(at - end), item] if at > end else [item]
        self.sizes[rank] = at + item.bytes
        file = f"__{rank}_{len(files) - 1}.distcp"
        self.stored.append(Stored(file, at, item.bytes, **place))

    def plans(self) -> Iterator[FilePlan]:
        """One plan a file."""
        for rank, files in sorted(self.files.items()):
            for number, items in enumerate(files):
                yield FilePlan(f"{self.folder}/__{rank}_{number}.distcp", items)


def _check_kind(name: str, matrix: Matrix, model: ModelConfig) -> None:
    if matrix.dtype not in TORCH:
        raise DataError(
            f"{name}: found {matrix.dtype}; a checkpoint holds {', '.join(TORCH.values())}"
        )
    wanted = shape_of(name, model)
    if matrix.shape != wanted:
        raise DataError(f"{name}: found {list(matrix.shape)}, its settings ask for {list(wanted)}")


def _add_tensor(files: _Files, name: str, matrix: Matrix, model: ModelConfig, mesh: Mesh) -> None:
    _check_kind(name, matrix, model)
    place = place_of(name, model)
    ones = (1,) * len(place.index)
    for piece in pieces_of(name, matrix, model, mesh):
        shape = piece.matrix.shape
        files.add(
            piece.rank,
            tensor_record(piece.matrix, (*ones, *shape), name),
            key=place.key,
            whole=(*place.counts, *matrix.shape),
            offsets=(*place.index, *(piece.row, piece.column)[: len(shape)]),
            sizes=(*ones, *shape),
            dtype=matrix.dtype,
        )


def _add_objects(
    files: _Files, names: Sequence[str] | Mapping[str, Any], model: ModelConfig, mesh: Mesh
) -> None:
    """What is no tensor: the state that all ranks have, and None for each linear layer."""
    files.add(0, Item(object_record([{"content_metadata": CONTENT}])), key=shard("common_state"))
    nothing = Item(object_record([None]))
    for name in names:
        linear = LINEAR.fullmatch(name)
        if linear and LAYER.fullmatch(name):
            place = place_of(name, model)
            key = f"{place.key.removesuffix('weight')}_extra_state"
            rank = first_rank(name, model, mesh)
            files.add(rank, nothing, key=shard(key, place))
    if model.kind != "decoder":  # where megatron-core asks for it, with tied embeddings too
        files.add(0, nothing, key=shard("output_layer._extra_state"))


def shard(key: str, place: Place | None = None) -> str:
    """The key of one object of several: `key/shard_INDEX_COUNTS`."""
    index, counts = (place.index, place.counts) if place and place.index else ((0,), (1,))
    return f"{key}/shard_{'.'.join(map(str, index))}_{'.'.join(map(str, counts))}"
