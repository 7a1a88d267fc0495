"""Imports point down only, and each heavy or foreign package has its one place."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "megatron_jobs"
LAYERS = {
    "errors": 0,
    "config": 1, "runtime": 1, "kernels": 1, "page": 1,
    "text": 2, "data": 2, "parallel": 2, "convert": 2,
    "model": 3, "optim": 3,
    "checkpoint": 4,
    "train": 5, "infer": 5, "estimate": 5,
    "stages": 6, "jobs": 6,
    "terminal": 7, "cli": 7, "enter": 7,
}  # fmt: skip
ENGINE = {"parallel", "model", "optim", "checkpoint", "train"}
NO_TORCH = {"errors", "config", "runtime", "text", "convert", "page", "jobs", "cli", "terminal"}
FILES = sorted(PACKAGE.rglob("*.py"))


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(tree: ast.AST) -> list[str]:
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
    return found


def faults_of(part: str, tree: ast.AST) -> list[str]:
    """What a file of `part` imports against the rules."""
    faults = []
    for name in imports_of(tree):
        root, _, rest = name.partition(".")
        target = rest.partition(".")[0]
        if root == "megatron_jobs" and target in LAYERS and LAYERS[target] > LAYERS[part]:
            faults.append(f"{name}: layer {LAYERS[target]} from layer {LAYERS[part]}")
        if root == "megatron" and part not in ENGINE:
            faults.append(f"{name}: only {', '.join(sorted(ENGINE))} may")
        if root == "torch" and part in NO_TORCH:
            faults.append(f"{name}: this part must not need torch")
    return faults


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    part = part_of(path)
    if part == "__init__":
        return
    assert part in LAYERS, f"{path}: give it a layer"
    assert not faults_of(part, ast.parse(path.read_text()))


def test_a_fault_is_seen() -> None:
    tree = ast.parse("import torch\nfrom megatron_jobs.jobs import plan\nimport megatron.core")
    assert len(faults_of("config", tree)) == 3
    assert faults_of("train", tree) == ["megatron_jobs.jobs: layer 6 from layer 5"]


def test_slurm_variables_are_read_in_one_place() -> None:
    readers = [path for path in FILES if 'env["SLURM_' in path.read_text()]
    assert [str(path.relative_to(PACKAGE)) for path in readers] == ["runtime/rank.py"]
    reads = re.compile(r"""(environ(\.get)?|getenv)[(\[]\s*["']SLURM_""")  # setting one is not
    others = [path for path in FILES if reads.search(path.read_text())]
    assert others == []


def test_torch_cuda_is_touched_in_two_places() -> None:
    touching = [path for path in FILES if "torch.cuda." in path.read_text()]
    assert {str(path.relative_to(PACKAGE)) for path in touching} <= {
        "kernels/cuda.py",
        "parallel/device.py",
    }
