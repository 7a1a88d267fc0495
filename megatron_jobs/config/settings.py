"""The base of every configuration class, and the path type that marks an input."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict

Problem = tuple[str, str]
"""(setting, sentence): a dotted name as the user typed it, and what is wrong with its value."""


class Settings(BaseModel):
    """A frozen tree of settings. A string under a field is its documentation.

    A class adds `problems` when values can be wrong together; it yields names relative to itself.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        validate_default=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )

    def problems(self) -> Iterator[Problem]:
        """Yield (setting, sentence) for values of right type that cannot work together."""
        yield from ()


def all_problems(settings: Settings) -> Iterator[Problem]:
    """What `problems` yields over the whole tree, with dotted names."""
    yield from settings.problems()
    for name, part in _parts(settings):
        yield from ((f"{name}.{setting}", sentence) for setting, sentence in all_problems(part))


def _parts(settings: Settings) -> Iterator[tuple[str, Settings]]:
    """(dotted name, settings) of those directly below, items of lists by their place."""
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, Settings):
            yield name, value
        elif isinstance(value, (list, tuple)):
            items = ((f"{name}.{place}", item) for place, item in enumerate(value))
            yield from (pair for pair in items if isinstance(pair[1], Settings))


class InputMark:
    """Annotation of a path that a job reads: it must exist, or be promised by another job."""


def _not_empty(value: Any) -> Any:
    if value == "":
        raise ValueError("is empty; must name a file or folder")
    return value


InputPath = Annotated[
    Path,
    BeforeValidator(_not_empty),
    AfterValidator(lambda path: path.expanduser().absolute()),
    InputMark(),
]
"""A file or folder that must be there when the job starts; made absolute."""


def input_paths(settings: Settings) -> Iterator[tuple[str, Path]]:
    """(dotted name, path) of every `InputPath` in the tree, lists and mappings included."""
    for name, field in type(settings).model_fields.items():
        marked = _is_input(field.annotation, field.metadata)
        yield from _paths(name, getattr(settings, name), marked)


def _is_input(annotation: Any, metadata: list[Any]) -> bool:
    if any(isinstance(mark, InputMark) for mark in metadata):
        return True
    inner = getattr(annotation, "__args__", ())
    return any(_is_input(arg, list(getattr(arg, "__metadata__", ()))) for arg in inner)


def _paths(name: str, value: Any, marked: bool) -> Iterator[tuple[str, Path]]:
    if isinstance(value, Settings):
        for inner, path in input_paths(value):
            yield f"{name}.{inner}", path
    elif isinstance(value, Path) and marked:
        yield name, value
    elif isinstance(value, (list, tuple)):
        for place, item in enumerate(value):
            yield from _paths(f"{name}.{place}", item, marked)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _paths(f"{name}.{key}", item, marked)
