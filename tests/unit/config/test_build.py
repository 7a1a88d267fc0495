from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import pytest
import yaml
from pydantic import Field

from megatron_jobs.config.build import build_settings
from megatron_jobs.config.settings import InputPath, Problem, Settings, input_paths


class Inner(Settings):
    size: int = 1
    kind: Literal["a", "b"] = "a"

    def problems(self) -> Iterator[Problem]:
        if self.size % 2 == 0:
            yield "size", f"{self.size} is even"


class Source(Settings):
    path: InputPath
    weight: float = 1


class Square(Settings):
    shape: Literal["square"] = "square"
    side: float = 1


class Circle(Settings):
    shape: Literal["circle"] = "circle"
    radius: float = 1


class Drawing(Settings):
    shapes: list[Annotated[Square | Circle, Field(discriminator="shape")]]


class Outer(Settings):
    inner: Inner = Inner()
    parts: tuple[Source, ...] = ()
    file: InputPath | None = None
    name: str


def test_all_faults_in_plain_words() -> None:
    values = {"inner": {"size": "x", "kind": "c"}, "parts": [{"pth": "y"}], "nmae": 1}
    settings, problems = build_settings(Outer, values)
    assert settings is None
    assert dict(problems) == {
        "inner.size": "must be a valid integer, unable to parse string as an integer, got 'x'",
        "inner.kind": "expected one of 'a' or 'b', got 'c'",
        "parts.0.path": "must be set: it has no default",
        "parts.0.pth": "no such setting: 'pth'; did you mean path?",
        "name": "must be set: it has no default",
        "nmae": "no such setting: 'nmae'; did you mean name?",
    }


def test_faults_of_one_of_several_classes() -> None:
    shapes = [{"shape": "circel"}, {"shape": "circle", "sid": 2}, {"shape": "square", "sid": 2}]
    values = {"shapes": [*shapes, {"shape": "square", "side": "x"}, {"side": 1}]}
    _, problems = build_settings(Drawing, values)
    assert dict(problems) == {
        "shapes.0.shape": "no such shape: 'circel'; did you mean circle?",
        "shapes.1.sid": "no such setting: 'sid'; there are radius, shape",
        "shapes.2.sid": "no such setting: 'sid'; did you mean side?",
        "shapes.3.side": "must be a valid number, unable to parse string as a number, got 'x'",
        "shapes.4.shape": "must be set: it has no default",
    }


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf"])
def test_numbers_are_finite(value: str) -> None:
    values = yaml.safe_load(f"{{path: x, weight: {value}}}")
    _, problems = build_settings(Source, values)
    assert problems == [("weight", f"must be a finite number, got {value.replace('.', '')}")]


def test_values_that_do_not_fit_together() -> None:
    settings, problems = build_settings(Outer, {"name": "n", "inner": {"size": 4}})
    assert settings is not None
    assert problems == [("inner.size", "4 is even")]


def test_inputs_are_found_wherever_they_stand() -> None:
    values = {"name": "n", "file": "f", "parts": [{"path": "/a"}, {"path": "/b"}]}
    settings, _ = build_settings(Outer, values)
    assert settings is not None
    assert dict(input_paths(settings)) == {
        "file": Path("f").absolute(),
        "parts.0.path": Path("/a"),
        "parts.1.path": Path("/b"),
    }
