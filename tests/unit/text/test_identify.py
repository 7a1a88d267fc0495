"""Languages of short texts of our own, whole and among others."""

import random
from collections import Counter
from pathlib import Path

import pytest
import yaml
from eldc import LANGUAGES
from justext import get_stoplist

from megatron_jobs.config.build import build_settings
from megatron_jobs.errors import DataError
from megatron_jobs.text.filters.identify import Identify
from megatron_jobs.text.identify import SAMPLE, UNKNOWN, detector, spread
from megatron_jobs.text.record import Record
from tests.unit.text.filters.judged import problems_of, verdict_of

TEXTS = {
    "en": "The job waits in the queue until the cluster has a free node for it.",
    "de": "Der Auftrag wartet in der Schlange, bis der Rechner einen Knoten frei hat.",
    "fr": "La tâche attend dans la file jusqu'à ce que la grappe ait un nœud libre pour elle.",
    "es": "El trabajo espera en la cola hasta que el equipo tenga un nodo libre para él.",
    "it": "Il lavoro aspetta in coda finché la macchina non ha un nodo libero.",
    "pt": "O trabalho espera na fila até que a máquina tenha um nó livre para ele.",
    "nl": "De taak wacht in de rij totdat de machine een vrije knoop heeft.",
    "pl": "Zadanie czeka w kolejce, aż komputer będzie miał wolny węzeł.",
    "ru": "Задание ждёт в очереди, пока в системе не освободится узел.",
    "ja": "空いている計算機が見つかるまで、仕事は列で待っています。",
    "zh": "任务在队列中等待,直到集群有空闲的节点。",
    "ar": "تنتظر المهمة في الطابور حتى تتوفر عقدة حرة.",
}  # fmt: skip

LISTS = {
    "Arabic": "ar", "Catalan": "ca", "Czech": "cs", "Danish": "da", "Dutch": "nl", "English": "en",
    "Finnish": "fi", "French": "fr", "German": "de", "Greek": "el", "Hebrew": "he", "Hindi": "hi",
    "Hungarian": "hu", "Italian": "it", "Korean": "ko", "Norwegian_Bokmal": "no", "Persian": "fa",
    "Polish": "pl", "Portuguese": "pt", "Romanian": "ro", "Russian": "ru", "Spanish": "es",
    "Swedish": "sv", "Turkish": "tr", "Ukrainian": "uk", "Vietnamese": "vi",
}  # fmt: skip
"""What jusText calls its lists of frequent words -> ISO 639-1."""


@pytest.mark.parametrize("language", TEXTS)
def test_twelve_languages(language: str) -> None:
    found, score = detector(None, samples=8)(TEXTS[language])
    assert found == language
    assert 0.4 < score <= 1


def test_most_of_a_long_text_decides() -> None:
    """Its beginning alone would be taken for English."""
    detect = detector(None, samples=8)
    text = TEXTS["en"] * 20 + TEXTS["de"] * 60
    assert detect(text[: 2 * SAMPLE])[0] == "en"
    language, score = detect(text)
    assert language == "de"
    assert score < detect(TEXTS["de"] * 60)[1]


@pytest.mark.parametrize("text", ["", " \n", "12345", "\0\0", "\ud800", "\0" + "🙂" * 2000])
def test_what_is_no_language(text: str) -> None:
    assert detector(None, samples=4)(text) == (UNKNOWN, 0.0)


def test_a_zero_byte_ends_no_text() -> None:
    assert detector(None, samples=4)("\0" + TEXTS["de"])[0] == "de"


@pytest.mark.parametrize(("size", "samples", "wanted"), [(1, 8, 1), (999, 8, 1), (9000, 4, 4)])
def test_samples_reach_from_end_to_end(size: int, samples: int, wanted: int) -> None:
    text = "".join(chr(0x4E00 + i) for i in range(size))
    parts = spread(text, samples)
    assert len(parts) == wanted
    assert text.startswith(parts[0])
    assert text.endswith(parts[-1])
    assert max(map(len, parts)) <= 2 * SAMPLE


def test_the_rule_writes_and_judges() -> None:
    record = Record("", TEXTS["de"], language="xx")
    assert verdict_of(Identify(languages=("de",)), record) is None
    assert record.language == "de"
    assert record.metadata["language_score"] > 0.5
    found = verdict_of(Identify(languages=("en", "fr")), record)
    assert found == ("identify.language", "de", ["en", "fr"])
    assert verdict_of(Identify(), Record("", "12 34")) == ("identify.score", 0.0, 0.5)
    trusted = Record("", TEXTS["de"], language="en")
    assert verdict_of(Identify(languages=("en",), trust=True), trusted) is None
    assert trusted.language == "en"


def test_a_model_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "lid.ftz"
    path.write_bytes(b"nothing of that kind")
    with pytest.raises(DataError) as caught:
        detector(path, samples=1)
    assert str(caught.value).startswith(f"{path}: no fastText model: ")


def test_what_cannot_work() -> None:
    assert problems_of(Identify, rule="identify", min_score=2, samples=0) == [
        ("min_score", "2.0 must be from 0 to 1"),
        ("samples", "0 must be at least 1"),
    ]
    assert problems_of(Identify, languages=["en", "nb", "ger", "pt"]) == [
        ("languages.1", "'nb' is told as 'no' by eldc; say that"),
        ("languages.2", "no such language: 'ger'; there are " + ", ".join(LANGUAGES)),
    ]
    assert problems_of(Identify, languages=["nb"], trust=True) == []


def test_norwegian_in_yaml() -> None:
    given = yaml.safe_load("languages: [en, no]")
    rule, problems = build_settings(Identify, given)
    assert rule is not None, problems
    assert rule.languages == ("en", "no")


@pytest.mark.parametrize("words", [25, 120])
def test_frequent_words_in_any_order(words: int) -> None:
    """jusText's lists for 26 languages: at least 98 of 100 are right, no language under 80."""
    detect, draw, right = detector(None, samples=8), random.Random(1), Counter[str]()
    for name, language in LISTS.items():
        known = get_stoplist(name)
        for _ in range(20):
            text = " ".join(draw.sample(sorted(known), words))
            right[language] += detect(text)[0] == language
    assert right.total() >= 0.98 * 20 * len(LISTS), right
    assert min(right[language] for language in LISTS.values()) >= 16, right
