"""Documents cut into sentences by Punkt: trained on the text at hand, or given; no download.

Source: Kiss and Strunk 2006, Computational Linguistics 32(4), as implemented in nltk.
"""

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer, PunktTrainer

from megatron_jobs.errors import DataError, UserError
from megatron_jobs.runtime.files import read_json, write_json

TAB_FILES = ("abbrev_types.txt", "collocations.tab", "sent_starters.txt", "ortho_context.tab")
"""What nltk's punkt_tab data keep in the folder of a language."""


class SentenceSplitter:
    """Cuts texts with one set of Punkt parameters.

    Args:
        parameters: abbreviations, collocations and so on.
        keep_space: leave the white space after a sentence at its end, so that the sentences put
            together are the text; otherwise it is lost.
    """

    def __init__(self, parameters: PunktParameters, *, keep_space: bool) -> None:
        self.punkt = PunktSentenceTokenizer(parameters)
        self.keep_space = keep_space

    def split(self, text: str) -> list[str]:
        """The sentences of a text, in order; the text itself where there is none."""
        spans = list(self.punkt.span_tokenize(text))
        if not spans:
            return [text]
        if not self.keep_space:
            return [text[start:end] for start, end in spans]
        cuts = [0, *(start for start, _ in spans[1:]), len(text)]
        return [text[a:b] for a, b in pairwise(cuts)]


def train_punkt(texts: Iterable[str]) -> PunktParameters:
    """Abbreviations, collocations and frequent first words, learned from texts alone."""
    trainer = PunktTrainer()
    for text in texts:
        trainer.train(text, finalize=False)
    trainer.finalize_training()
    return trainer.get_params()


def save_punkt(parameters: PunktParameters, path: Path) -> None:
    """Write parameters as one JSON file; equal parameters give equal bytes."""
    write_json(
        path,
        {
            "abbreviations": sorted(parameters.abbrev_types),
            "collocations": sorted(list(pair) for pair in parameters.collocations),
            "starters": sorted(parameters.sent_starters),
            "orthography": dict(sorted(parameters.ortho_context.items())),
        },
    )


def load_punkt(path: Path) -> PunktParameters:
    """Parameters from a file of `save_punkt`, or from a folder of nltk's punkt_tab data."""
    parameters = PunktParameters()
    values = _read_tabs(path) if path.is_dir() else _read_saved(path)
    parameters.abbrev_types = set(values["abbreviations"])
    parameters.collocations = {(first, second) for first, second in values["collocations"]}
    parameters.sent_starters = set(values["starters"])
    for word, flags in values["orthography"].items():
        parameters.ortho_context[word] = int(flags)
    return parameters


def _read_saved(path: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = read_json(path)
        values["abbreviations"], values["collocations"], values["starters"], values["orthography"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not a saved Punkt model: {error!r}") from error
    return values


def _read_tabs(folder: Path) -> dict[str, Any]:
    """nltk's punkt_tab: one entry a line, fields by tabs."""
    missing = [name for name in TAB_FILES if not (folder / name).is_file()]
    if missing:
        raise UserError(f"{folder}: has no {', '.join(missing)}; nltk's punkt_tab/LANGUAGE has all")
    rows = {
        name: [line.split("\t") for line in (folder / name).read_text("utf-8").splitlines() if line]
        for name in TAB_FILES
    }
    return {
        "abbreviations": [row[0] for row in rows["abbrev_types.txt"]],
        "collocations": rows["collocations.tab"],
        "starters": [row[0] for row in rows["sent_starters.txt"]],
        "orthography": dict(rows["ortho_context.tab"]),
    }
