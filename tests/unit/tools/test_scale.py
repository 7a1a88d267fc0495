"""The bench of the rendezvous ends when a part of it dies, and leaves no process."""

import argparse
import importlib.util
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

TOOL = Path(__file__).parents[3] / "tools" / "bench" / "scale.py"
STAND_IN = """
import socket, time
door = socket.create_server(("127.0.0.1", 0))
print(door.getsockname()[1], flush=True)
time.sleep(%s)
"""
"""A store that answers nobody."""


@pytest.fixture
def scale(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("scale", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "SERVER", STAND_IN % 60)
    return module


def measured(scale: ModuleType, monkeypatch: pytest.MonkeyPatch) -> str:
    """What `measure` raises; no process is left."""
    stores: list[Any] = []

    class Noted(scale.Store):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            stores.append(self)

    monkeypatch.setattr(scale, "Store", Noted)
    asked = argparse.Namespace(now=3, ranks=2, world=6)
    with pytest.raises(RuntimeError) as caught:
        scale.measure(asked, relayed=False)
    assert stores[0].process.returncode is not None
    assert scale.multiprocessing.active_children() == []
    return str(caught.value)


def test_a_process_that_dies(scale: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(answers: object, nodes: range, *_: object) -> None:
        os._exit(3 if nodes.start else 0)

    monkeypatch.setattr(scale, "RANKS_A_PROCESS", 3)
    monkeypatch.setattr(scale, "be_nodes", die)
    words = "process 2 of 2, playing nodes, ended with exit status 3"
    assert measured(scale, monkeypatch) == words


def test_a_store_that_dies(scale: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "SERVER", STAND_IN % 0.3)
    assert measured(scale, monkeypatch) == "the store ended with exit status 0"
