"""The page tells what the stages left, adds up, and lets nothing break out."""

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from megatron_jobs.config.settings import all_problems
from megatron_jobs.data.report.words import say_bytes, say_count, say_share
from megatron_jobs.errors import DataError
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.stages import blend_report, data_report
from megatron_jobs.stages.data_report import Config, FunnelStep
from megatron_jobs.text.passes import Counts
from tests.pages import Words
from tests.unit.data.test_ledger import open_ledger
from tests.unit.stages.test_blend_report import settings as settings_of_blend

HOSTILE = "<script>alert(1)</script>"


def write_counts(path: Path, **facts: Any) -> Path:
    path.write_text(json.dumps(asdict(Counts(**facts))))
    return path


def settings_without(tmp_path: Path) -> Config:
    web = {"read": 1000, "kept": 800, "rejected": {"extract.empty": 150}}
    web |= {"quarantined": {"damaged": 50}, "lengths": {"10": 500, "12": 300}}
    mails = {"read": 500, "kept": 500, "lengths": {"9": 500}}
    last = {"read": 1300, "kept": 325, "rejected": {f"rule.{HOSTILE}": 975}, "bytes_kept": 12345}
    last |= {"languages": {"en": 300, "": 25}, "licences": {"": 325}, "lengths": {"10": 325}}
    last |= {"further": {"redacted.email": 17, "redacted.phone": 3, "cut": 5}}
    (tmp_path / "duplicates.json").write_text(json.dumps(DUPLICATES))
    return Config(
        title=f"Corpus {HOSTILE}",
        funnel=(
            FunnelStep(
                name="extract",
                counts=(
                    write_counts(tmp_path / "web.json", **web),
                    write_counts(tmp_path / "mails.json", **mails),
                ),
            ),
            FunnelStep(name="filter", counts=(write_counts(tmp_path / "filter.json", **last),)),
        ),
        duplicates=(tmp_path / "duplicates.json",),
    )


def settings(tmp_path: Path) -> Config:
    index = open_ledger(tmp_path, sources=3, packing="none").index.folder
    return settings_without(tmp_path).model_copy(update={"index": index})


DUPLICATES = {
    "method": "minhash",
    "items": 1300,
    "clusters": 9,
    "removed": 40,
    "clusters_by_size": {"2": 7, "4": 2},
    "sources": {"web": 800},
    "removed_by_source": {"web": 40},
    "pairs": {
        "estimated_recall": 0.9312,
        "examples": [{"ids": ["a", HOSTILE], "texts": ["one", HOSTILE], "jaccard": 0.87654}],
    },
}


def test_the_page(tmp_path: Path) -> None:
    numbers = data_report.run(settings(tmp_path), Rank(), tmp_path)
    assert numbers == {"records_in": 1500, "documents": 325, "tokens": 0}
    page = (tmp_path / "report.html").read_text()
    words = Words(page)
    text = " ".join(" ".join(words.texts).split())
    assert "documents in 1,500 documents out 325 kept 21.7 %" in text
    assert "extract 1,300 of 1,500 filter 325 of 1,300" in text
    assert "extract: extract.empty 150 · 10.0 %" in text
    assert "email 17 phone 3" in text
    assert "9 clusters (minhash); 40 of 1,300 documents removed." in text
    assert "93.1% are found, by estimate" in text
    assert "0.877" in text
    assert "source0 16.7 % of the samples" in text
    assert words.tags.count("script") == 1  # our own, empty
    assert text.count(HOSTILE) == 5
    assert not re.search(r"https?://|url\(|src=", page)


def test_a_blend_in_phases(tmp_path: Path) -> None:
    """75 samples by 1:2:3, then 75 by 5:0:1."""
    ledger = open_ledger(tmp_path, sources=3, packing="none", phases=2)
    config = settings_without(tmp_path).model_copy(update={"index": ledger.index.folder})
    data_report.run(config, Rank(), tmp_path)
    text = " ".join(Words((tmp_path / "report.html").read_text()).texts)
    read = [int(ledger.splits["train"].blend.taken(150)[i]) for i in range(3)]  # type: ignore[union-attr]
    assert [round(n / 150, 1) for n in read] == [0.5, 0.2, 0.3]
    for i, samples in enumerate(read):
        assert f"source{i} {samples / 1.5:.1f} % of the samples" in " ".join(text.split())


def test_widths_are_shares_of_the_longest(tmp_path: Path) -> None:
    data_report.run(settings(tmp_path), Rank(), tmp_path)
    page = (tmp_path / "report.html").read_text()
    funnel = page[page.index('id="funnel"') : page.index("</section>")]
    found = re.findall(r"is-(\w+)\" style=\"left:([\d.]+)%;width:max\(([\d.]+)%", funnel)
    assert found == [
        ("kept", "0.00", "86.67"),
        ("second", "86.67", "10.00"),
        ("third", "96.67", "3.33"),
        ("kept", "0.00", "21.67"),
        ("second", "21.67", "65.00"),
    ]


def test_reports_of_tokenizers_and_of_the_blend(tmp_path: Path) -> None:
    """Their numbers are on the page as they stand in their files."""
    (tmp_path / "blend").mkdir()
    blend = settings_of_blend(tmp_path / "blend")
    made_of = tmp_path / "made-of"
    blend_report.run(blend, Rank(), made_of)
    ratios = {"bytes_per_token": 4.321, "tokens_per_word": 1.234}
    shares = {"one_byte": 0.5, "broken": 0.25, "unknown": 0.0}
    one = {"vocabulary": 512, "unused": 0.125, "all": ratios | shares, "languages": {"de": ratios}}
    (tmp_path / "fertility.json").write_text(json.dumps({"tokenizers": {HOSTILE: one}}))
    more = {"made_of": made_of / "blend_report.json", "fertility": tmp_path / "fertility.json"}
    config = settings(tmp_path).model_copy(update=more)
    data_report.run(config, Rank(), tmp_path)
    words = Words((tmp_path / "report.html").read_text())
    text = " ".join(" ".join(words.texts).split())
    assert words.tags.count("script") == 1
    assert (
        "Tokens read by group of licences unknown 3,200 · 66.7 % share-alike 1,600 · 33.3 %" in text
    )
    assert "Pronoun: mentions in a million words he 62,500.0 · 50.0 % she 62,500.0" in text
    assert f"language {HOSTILE} de 4.32 all 4.32" in text
    assert "512 50.00% 25.00% 0.00% 12.5%" in text
    bad = config.model_copy(update={"made_of": tmp_path / "fertility.json"})
    with pytest.raises(
        DataError, match="has no 'licence_groups'; must be the report of a blend_re"
    ):
        data_report.run(bad, Rank(), tmp_path)


def test_what_is_no_counts(tmp_path: Path) -> None:
    config = settings(tmp_path)
    (tmp_path / "web.json").write_text('{"read": 1, "loss": 2}')
    with pytest.raises(DataError, match=r"web.json: not the counts of a pass over records: .*loss"):
        data_report.run(config, Rank(), tmp_path)
    assert list(all_problems(Config(funnel=()))) == [
        ("funnel", "found nothing, must name at least one stage")
    ]


def test_counts_as_people_read_them() -> None:
    assert [say_count(n) for n in (0, 12345, 12_345_678, 12_345_678_901)] == [
        "0", "12,345", "12.3 M", "12.35 G"
    ]  # fmt: skip
    assert [say_bytes(n) for n in (0, 999, 1000, 12_345_678)] == ["0 B", "999 B", "1 kB", "12.3 MB"]
    assert [say_share(*p) for p in ((1, 3), (1, 10_000), (9999, 10_000), (0, 0))] == [
        "33.3 %", "< 0.1 %", "> 99.9 %", "–"
    ]  # fmt: skip
