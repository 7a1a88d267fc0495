"""Names of people in text, by a library that is installed beside this one.

spacy:MODEL    a pipeline of spaCy's, a package's name or a folder: entities PERSON and PER
presidio:LANG  Presidio's analyzer with its default pipeline of that language: PERSON
"""

from collections.abc import Iterator
from typing import Any

from megatron_jobs.errors import UserError
from megatron_jobs.text.redact import FindNames

LIBRARIES = ("spacy", "presidio")
PEOPLE = ("PERSON", "PER")
PIECE = 50_000
"""Letters that are looked at together; memory grows with them."""


def check_names(spec: str) -> str:
    """What is wrong with a setting `LIBRARY:MODEL`; "" for nothing."""
    library, _, model = spec.partition(":")
    if library in LIBRARIES and model:
        return ""
    return f"found {spec!r}, must be spacy:MODEL or presidio:LANGUAGE"


def load_names(spec: str) -> FindNames:
    """What finds (begin, end) of names, in characters.

    Raises: UserError when the library or its model is not installed.
    """
    library, _, model = spec.partition(":")
    find = _load_spacy(model) if library == "spacy" else _load_presidio(model)

    def find_names(text: str) -> Iterator[tuple[int, int]]:
        for start in range(0, len(text), PIECE):
            for begin, end in find(text[start : start + PIECE]):
                yield start + begin, start + end

    return find_names


def _load_spacy(model: str) -> FindNames:
    spacy = _import("spacy", "spacy")
    try:
        pipeline: Any = spacy.load(model)
    except OSError as error:
        cure = f"python -m spacy download {model}, or give the folder of a model"
        raise UserError(f"names: spaCy has no model {model!r}; {cure}") from error

    def find(text: str) -> Iterator[tuple[int, int]]:
        for entity in pipeline(text).ents:
            if entity.label_ in PEOPLE:
                yield entity.start_char, entity.end_char

    return find


def _load_presidio(language: str) -> FindNames:
    analyzer: Any = _import("presidio_analyzer", "presidio-analyzer").AnalyzerEngine()

    def find(text: str) -> Iterator[tuple[int, int]]:
        for result in analyzer.analyze(text, language=language, entities=["PERSON"]):
            yield result.start, result.end

    return find


def _import(module: str, package: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UserError(
            f"names: the package {package} is not installed; pip install {package}, or set names="
        ) from error
