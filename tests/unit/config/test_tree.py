from pathlib import Path

import pytest

from megatron_jobs.config.tree import apply_words, read_tree, underlay_presets
from megatron_jobs.errors import UserError


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_each_value_knows_its_line(tmp_path: Path) -> None:
    tree = read_tree(write(tmp_path / "a.yaml", "a: 1\nb:\n  c: [2, 3]\n  d: ./x\n"), "a.yaml")
    assert tree.values == {"a": 1, "b": {"c": [2, 3], "d": str(tmp_path / "x")}}
    assert tree.origins == {
        "a": "a.yaml:1",
        "b.c.0": "a.yaml:3",
        "b.c.1": "a.yaml:3",
        "b.d": "a.yaml:4",
    }


def test_words_win_and_reach_into_lists(tmp_path: Path) -> None:
    tree = read_tree(write(tmp_path / "a.yaml", "a: 1\nb: {c: [2, 3]}\n"), "a.yaml")
    apply_words(tree, ["b.c.1=5e-1", "b.new.deep=[x, y]", "a="])
    assert tree.values == {"a": None, "b": {"c": [2, "5e-1"], "new": {"deep": ["x", "y"]}}}
    assert tree.origins["b.c.1"] == "command line"
    assert tree.origins["b.c.0"] == "a.yaml:2"
    assert not tree.problems


@pytest.mark.parametrize(
    ("word", "problem"),
    [
        ("steps", ("steps", "not of the form key=value")),
        ("a.b=1", ("a.b", "a is not a mapping or list with that place")),
        ("c.7=1", ("c.7", "the list has 2 places, counted from 0")),
    ],
)
def test_bad_words_are_problems(tmp_path: Path, word: str, problem: tuple[str, str]) -> None:
    tree = read_tree(write(tmp_path / "a.yaml", "a: 1\nc: [1, 2]\n"))
    apply_words(tree, [word])
    assert tree.problems == [problem]


def test_a_preset_lies_under_the_file(tmp_path: Path) -> None:
    preset = write(tmp_path / "small.yaml", "layers: 2\nheads: 4\n")
    tree = read_tree(write(tmp_path / "a.yaml", f"model:\n  preset: {preset}\n  heads: 8\n"), "a")
    underlay_presets(tree)
    assert tree.values == {"model": {"heads": 8, "layers": 2}}
    assert tree.origins == {"model.heads": "a:3", "model.layers": f"preset {preset}"}


def test_an_unknown_preset_is_named_with_a_neighbour(tmp_path: Path) -> None:
    write(tmp_path / "small.yaml", "a: 1\n")
    wanted = tmp_path / "smal.yaml"
    tree = read_tree(write(tmp_path / "a.yaml", f"model: {{preset: {wanted}}}\n"))
    underlay_presets(tree)
    assert tree.problems[0][0] == "model.preset"
    assert tree.problems[0][1].startswith("no such preset: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "not YAML"),
        ("- 1\n", "must be a mapping of settings"),
        ("", "must be a mapping of settings"),
    ],
)
def test_what_is_no_mapping_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_tree(write(tmp_path / "a.yaml", text))


def test_a_key_given_twice_is_a_problem(tmp_path: Path) -> None:
    tree = read_tree(write(tmp_path / "a.yaml", "a: 1\nb:\n  c: 1\n  c: 2\n"))
    assert tree.problems == [("b.c", "given twice, again in line 4")]
