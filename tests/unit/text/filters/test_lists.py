"""Rules by lists: ids, addresses, words."""

import gzip
import json
from pathlib import Path

import pytest

from megatron_jobs.errors import DataError, UserError
from megatron_jobs.text.filters.ids import Ids
from megatron_jobs.text.filters.lexicon import Lexicon
from megatron_jobs.text.filters.page import Page
from megatron_jobs.text.filters.urls import Urls
from megatron_jobs.text.filters.word_lists import read_lines
from megatron_jobs.text.record import Record
from tests.unit.text.filters.judged import judged, problems_of, verdict_of


def listed(folder: Path, name: str, *entries: str) -> Path:
    path = folder / name
    path.write_text("\n".join(["# a comment", *entries, ""]))
    return path


def test_lists_in_any_form(tmp_path: Path) -> None:
    plain = listed(tmp_path, "plain.txt", " a ", "", "b", "a")
    (tmp_path / "list.json").write_text(json.dumps(["a", "b", " "]))
    (tmp_path / "packed.txt.gz").write_bytes(gzip.compress(plain.read_bytes()))
    for name in ("plain.txt", "list.json", "packed.txt.gz"):
        assert read_lines(tmp_path / name) == ["a", "b"], name


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b"{}", "found no list of strings; give one entry a line, or a JSON list"),
        ("a.json", b"[1", "no JSON: "),
        ("a.txt", b"\xff", "cannot be read as a list: "),
        ("a.gz", b"none", "cannot be read as a list: "),
        ("a.zst", b"none", "cannot be read as a list: "),
    ],
)
def test_a_list_that_is_none(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_lines(path)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_requests_to_delete(tmp_path: Path) -> None:
    file = listed(tmp_path, "ids.txt", "r1", "r2")
    assert verdict_of(Ids(file=file), Record("r1", "")) == ("ids.listed", "r1", "ids.txt")
    assert verdict_of(Ids(file=file), Record("r3", "")) is None
    assert verdict_of(Ids(file=file, keep=True), Record("r1", "")) is None
    assert verdict_of(Ids(file=file, keep=True), Record("r3", "")) == (
        "ids.not_listed", "r3", "ids.txt"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("", ""),
        ("https://fine.org/page", ""),
        ("https://bad.org", "domain"),
        ("http://deep.WWW.bad.org:8080/a?b", "domain"),
        ("www.bad.org/x", "domain"),
        ("https://notbad.org", ""),
        ("https://org", ""),
        ("https://half.org/shop/item?id=1", "prefix"),
        ("https://www.half.org/shop/", "prefix"),
        ("https://half.org/shopping", ""),
        ("https://half.org/about", ""),
        ("https://a.org/Casino/page", "word"),
        ("https://a.org/casinos", ""),
        ("https://a.org/free-money.html", "soft_words"),
        ("https://a.org/free-free.html", ""),
        ("https://my-poker-page.org/", "part"),
        ("https://po-ker.org/", "part"),
        ("https://[bad", ""),
    ],
)
def test_addresses(tmp_path: Path, url: str, wanted: str) -> None:
    rule = Urls(
        domains=listed(tmp_path, "domains", "Bad.org.", "worse.com"),
        prefixes=listed(tmp_path, "prefixes", "https://half.org/shop/"),
        words=listed(tmp_path, "words", "casino"),
        parts=listed(tmp_path, "parts", "poker"),
        soft_words=listed(tmp_path, "soft", "free", "money"),
    )
    assert judged(rule, url=url) == wanted


def test_lexicon_by_language(tmp_path: Path) -> None:
    files = {
        "en": listed(tmp_path, "en", "Darn", "blue moon", "s&m", "🖕"),
        "de": listed(tmp_path, "de", "verflixt"),
        "ja": listed(tmp_path, "ja", "馬鹿", "鹿"),
    }
    rule = Lexicon(files=files)
    assert judged(rule, "It was darned good.", language="en") == ""
    assert judged(rule, "Oh, DARN!", language="en") == "words"
    assert judged(rule, "Once in a blue  moon.", language="en") == "words"
    assert judged(rule, "A moon, blue.", language="en") == ""
    assert judged(rule, "see x.org/darn-it", language="en") == "words"
    assert judged(rule, "That's m or n", language="en") == ""
    assert judged(rule, "s&m", language="en") == "words"
    assert judged(rule, "so 🖕", language="en") == "words"
    assert judged(rule, "Oh, darn!") == "words"
    assert judged(rule, "Oh, darn!", language="de") == ""
    assert judged(rule, "Verflixt nochmal", language="de") == "words"
    assert judged(rule, "お馬鹿さん", language="ja") == "words"
    assert judged(rule.model_copy(update={"allow": ("darn",)}), "Oh, darn!") == ""
    page = Page(Record("r1", "Oh, darn!", language="fr"))
    assert rule.prepare()(page) is None
    assert page.counts == {"lexicon.no_list": 1}


def test_lexicon_by_share(tmp_path: Path) -> None:
    rule = Lexicon(files={"en": listed(tmp_path, "en", "darn", "blue moon")}, max_share=0.2)
    assert judged(rule, "one two three four darn") == ""
    assert verdict_of(rule, Record("", "one two darn four blue moon")) == (
        "lexicon.share", 0.5, 0.2
    )  # fmt: skip


def test_what_cannot_work() -> None:
    assert problems_of(Urls, rule="urls", soft_limit=0) == [
        ("rule", "urls needs at least one of domains, prefixes, words, parts, soft_words"),
        ("soft_limit", "0 must be at least 1"),
    ]
    assert problems_of(Lexicon, rule="lexicon", files={}, max_share=2) == [
        ("files", "found none, must name a list for at least one language"),
        ("max_share", "2.0 must be from 0 to 1"),
    ]


def test_words_that_cannot_stand_in_an_address(tmp_path: Path) -> None:
    mixed, foreign = listed(tmp_path, "m.txt", "賭博", "casino"), listed(tmp_path, "f.txt", "賭博")
    for name in ("words", "parts", "soft_words"):
        rule = Urls(**{name: mixed}, soft_limit=1)
        assert judged(rule, url="https://a.org/wiki/Tree/") == "", name
        assert judged(rule, url="https://a.org/casino/") != "", name
        with pytest.raises(UserError, match="found no entry with a letter from a to z or a digit"):
            Urls(**{name: foreign}).prepare()
