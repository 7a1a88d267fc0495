"""megatron-core's own data classes, the oracle of our data tests, loaded without a GPU."""

import importlib.machinery
import importlib.util
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
    from megatron_jobs.parallel.device import install

    install()
    names = ("indexed_dataset", "gpt_dataset", "blended_megatron_dataset_builder")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        modules = {n: importlib.import_module(f"megatron.core.datasets.{n}") for n in names}
    return SimpleNamespace(**modules)
