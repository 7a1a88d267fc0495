"""The house's sizes: files, functions, nesting, names."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
PYTHON = [p for d in ("megatron_jobs", "tools", "tests") for p in sorted((ROOT / d).rglob("*.py"))]
OTHERS = [p for p in sorted((ROOT / "csrc").rglob("*")) if p.suffix in {".cpp", ".h", ".cu"}]
FORBIDDEN = {"utils", "util", "common", "helpers", "helper", "misc", "manager", "handler"}
DEEP = (ast.For, ast.While, ast.If, ast.With, ast.Try)


def functions(path: Path) -> list[ast.FunctionDef]:
    tree = ast.parse(path.read_text())
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


def depth(node: ast.AST, level: int = 0) -> int:
    """Deepest nesting of blocks below a node; elif counts as its if."""
    deepest = level
    for name, child in ast.iter_fields(node):
        for item in child if isinstance(child, list) else [child]:
            if not isinstance(item, ast.AST) or isinstance(item, ast.FunctionDef):
                continue
            chained = name == "orelse" and isinstance(node, ast.If) and isinstance(item, ast.If)
            step = 0 if chained or not isinstance(item, DEEP) else 1
            deepest = max(deepest, depth(item, level + step))
    return deepest


def test_no_file_is_over_400_lines() -> None:
    sizes = {p: len(p.read_text().splitlines()) for p in PYTHON + OTHERS}
    assert not {str(p.relative_to(ROOT)): n for p, n in sizes.items() if n > 400}


def test_no_function_is_over_40_lines() -> None:
    long = [
        f"{path.relative_to(ROOT)}:{f.lineno} {f.name} {f.end_lineno - f.lineno + 1}"
        for path in PYTHON
        for f in functions(path)
        if f.end_lineno is not None and f.end_lineno - f.lineno + 1 > 40
    ]
    assert not long


def test_nothing_nests_deeper_than_three() -> None:
    deep = [
        f"{path.relative_to(ROOT)}:{f.lineno} {f.name} {depth(f)}"
        for path in PYTHON
        for f in functions(path)
        if depth(f) > 3
    ]
    assert not deep


def test_no_name_says_nothing() -> None:
    names = [p for p in PYTHON + OTHERS if set(p.stem.lower().split("_")) & FORBIDDEN]
    assert not names


def test_nesting_is_measured_rightly() -> None:
    text = "def f():\n for a in b:\n  if a:\n   while a:\n    with a:\n     pass\n"
    assert depth(ast.parse(text).body[0]) == 4
    assert depth(ast.parse("def f():\n if a:\n  pass\n elif b:\n  pass\n").body[0]) == 1
