"""From a raw tree to a frozen, typed configuration, every fault in plain words."""

from collections.abc import Iterator
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from megatron_jobs.config.settings import Problem, Settings, all_problems
from megatron_jobs.config.tree import no_such

S = TypeVar("S", bound=Settings)


def build_settings(cls: type[S], values: Any) -> tuple[S | None, list[Problem]]:
    """The configuration that `values` describe, or None, and all that is wrong with them."""
    try:
        settings = cls.model_validate(values)
    except ValidationError as error:
        return None, [_in_plain_words(cls, dict(fault)) for fault in error.errors()]
    return settings, list(all_problems(settings))


def _in_plain_words(cls: type[BaseModel], fault: dict[str, Any]) -> Problem:
    where, beside = _place(cls, [str(part) for part in fault["loc"]])
    name = ".".join(where) or "settings"
    kind, found, context = fault["type"], fault.get("input"), fault.get("ctx", {})
    if kind == "extra_forbidden":
        return name, no_such("setting", where[-1], sorted(beside))
    if kind == "missing":
        return name, "must be set: it has no default"
    if kind == "literal_error":
        return name, f"expected one of {context['expected']}, got {found!r}"
    if kind.startswith("union_tag"):
        return _of_a_union(name, context)
    if kind == "value_error":
        return name, str(context["error"])
    text = fault["msg"].replace("Input should be", "must be").replace("input should be", "must be")
    return name, f"{text[0].lower()}{text[1:]}, got {_short(found)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _of_a_union(name: str, context: dict[str, Any]) -> Problem:
    """What is wrong with the field that says which of several classes settings are of."""
    field = context["discriminator"].strip("'")
    if "tag" not in context:
        return f"{name}.{field}", "must be set: it has no default"
    known = [tag.strip(" '") for tag in context["expected_tags"].split(",")]
    return f"{name}.{field}", no_such(field, context["tag"], known)


def _place(cls: type[BaseModel], where: list[str]) -> tuple[list[str], set[str]]:
    """A place as the user typed it, and the settings that could stand there.

    Where one of several classes was meant, pydantic puts its tag into the place.
    """
    names: list[str] = []
    choices: list[type[BaseModel]] = [cls]
    fields: set[str] = set()
    for part in where:
        tagged = [choice for choice in choices if part in _tags(choice)]
        if len(choices) > 1 and tagged:
            choices = tagged
            continue
        names.append(part)
        fields = set().union(*(choice.model_fields for choice in choices))
        if part in fields:
            inner = [c.model_fields[part].annotation for c in choices if part in c.model_fields]
            choices = [found for annotation in inner for found in _settings_in(annotation)]
    return names, fields


def _tags(cls: type[BaseModel]) -> set[Any]:
    """The values by which a class is told from others: literals of one value."""
    fields = cls.model_fields.values()
    return {field.default for field in fields if get_args(field.annotation) == (field.default,)}


def _settings_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The configuration classes inside an annotation such as `list[Blend]` or `Model | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from _settings_in(part)
