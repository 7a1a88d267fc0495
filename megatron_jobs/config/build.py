"""From a raw tree to a frozen, typed configuration, every fault in plain words."""

from typing import Any, TypeVar

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
    where = [str(part) for part in fault["loc"]]
    name = ".".join(where) or "settings"
    kind, found, context = fault["type"], fault.get("input"), fault.get("ctx", {})
    if kind == "extra_forbidden":
        known = _fields_beside(cls, where)
        return name, no_such("setting", where[-1], known)
    if kind == "missing":
        return name, "must be set: it has no default"
    if kind == "literal_error":
        return name, f"expected one of {context['expected']}, got {found!r}"
    if kind == "value_error":
        return name, str(context["error"])
    text = fault["msg"].replace("Input should be", "must be").replace("input should be", "must be")
    return name, f"{text[0].lower()}{text[1:]}, got {_short(found)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _fields_beside(cls: type[BaseModel], where: list[str]) -> list[str]:
    """Names of the settings that could stand where an unknown one was found."""
    current: Any = cls
    for part in where[:-1]:
        fields = getattr(current, "model_fields", {})
        if part in fields:
            current = _settings_in(fields[part].annotation)
    return sorted(getattr(current, "model_fields", {}))


def _settings_in(annotation: Any) -> Any:
    """The configuration class inside an annotation such as `list[Blend]` or `Model | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_settings_in(part) for part in getattr(annotation, "__args__", ()))
    return next((found for found in inner if found is not None), None)
