"""Which language is it? Judged by samples spread over the text.

Two detectors: eldc, whose model is inside its package (60 languages, the default), and any fastText
model, such as the lid.176 of CCNet and FineWeb, judged on the whole text as they do.
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from megatron_jobs.config.tree import no_such
from megatron_jobs.errors import DataError, UserError

UNKNOWN = "und"
"""ISO 639-2's word for a language that nobody could tell."""
SAMPLE = 500
"""Characters of a sample of a long text."""

TOLD_AS = {"nb": "no", "nn": "no", "id": "ms", "bs": "hr", "jv": "ms"}
"""Languages that eldc takes for another, and which."""

Detector = Callable[[str], tuple[str, float]]
"""text -> its language, ISO 639-1 where there is one, and how sure that is, from 0 to 1."""


def detector(model: Path | None, *, samples: int) -> Detector:
    """The detector of a fastText model, or eldc's by `samples` samples when there is no model.

    Raises: UserError, DataError.
    """
    return _eldc(samples) if model is None else _fast_text(model)


def unknown_language(language: str) -> str:
    """Why eldc never names this language, in words; "" when it does."""
    from eldc import LANGUAGES

    if language in LANGUAGES:
        return ""
    if language in TOLD_AS:
        return f"{language!r} is told as {TOLD_AS[language]!r} by eldc; say that"
    return no_such("language", language, list(LANGUAGES))


def spread(text: str, samples: int) -> list[str]:
    """The text, when two samples cover it; else samples from its beginning to its end."""
    count = min(samples, 1 + len(text) // (2 * SAMPLE))
    if count <= 1:
        return [text[: 2 * SAMPLE]]
    step = (len(text) - SAMPLE) / (count - 1)
    starts = [int(number * step) for number in range(count)]
    return [text[start : start + SAMPLE] for start in starts]


def _eldc(samples: int) -> Detector:
    import eldc

    eldc.init()

    def detect(text: str) -> tuple[str, float]:
        scores: Counter[str] = Counter()
        parts = spread(text, samples)
        for part in parts:
            # a lone half of a surrogate pair is no UTF-8, a NUL ends a text in C
            clean = part.encode("utf-8", "replace").decode().replace("\0", " ")
            for language, score in eldc.detect_details(clean).scores.items():
                scores[language] += score
        if not scores:
            return UNKNOWN, 0.0
        best = max(scores, key=lambda language: scores[language])
        return best, scores[best] / len(parts)

    return detect


def _fast_text(path: Path) -> Detector:
    try:
        import fasttext
    except ImportError:
        cure = "pip install fasttext-predict, or leave `model` out for eldc"
        raise UserError(f"language.model: {path.name} needs fasttext-predict; {cure}") from None
    try:
        model = fasttext.load_model(str(path))
    except (ValueError, RuntimeError) as error:
        raise DataError(f"{path}: no fastText model: {error}") from error

    def detect(text: str) -> tuple[str, float]:
        labels, scores = model.predict(text.replace("\n", " "), 1)
        if not labels:
            return UNKNOWN, 0.0
        return labels[0].removeprefix("__label__"), min(float(scores[0]), 1.0)

    return detect
