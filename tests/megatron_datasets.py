"""megatron-core's own data classes, the oracle of our data tests, loaded without a GPU."""

import importlib.machinery
import importlib.util
import sys
import types
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any


def megatron_native() -> Any:
    """megatron-core's compiled index builders alone: no torch, no rest of megatron-core."""
    spec = importlib.util.find_spec("megatron")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    places = [Path(place) / "core/datasets" for place in spec.submodule_search_locations]
    (library,) = [file for place in places for file in place.glob("helpers_cpp*.so")]
    loader = importlib.machinery.ExtensionFileLoader("helpers_cpp", str(library))
    module_spec = importlib.util.spec_from_file_location("helpers_cpp", library, loader=loader)
    assert module_spec is not None
    module = importlib.util.module_from_spec(module_spec)
    loader.exec_module(module)
    return module


def megatron_datasets() -> SimpleNamespace:
    """megatron-core's dataset modules, by their last name."""
    if importlib.util.find_spec("triton") is None:
        name = "megatron.core.transformer.moe.ops.paged_stash"
        stand_in = types.ModuleType(name)
        stand_in.__dict__.update(
            GLOBAL_BLOCK_SIZE=1024, paged_stash_copy_kernel=None, paged_stash_pop_kernel=None
        )
        sys.modules.setdefault(name, stand_in)
    names = ("indexed_dataset", "gpt_dataset", "blended_megatron_dataset_builder")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        modules = {n: importlib.import_module(f"megatron.core.datasets.{n}") for n in names}
    return SimpleNamespace(**modules)
