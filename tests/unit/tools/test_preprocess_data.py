"""The customary command lines against megatron-core's builder fed with the same ids."""

import gzip
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from transformers import AutoTokenizer, GPT2TokenizerFast

from megatron_jobs.data.document_names import DocumentNames
from megatron_jobs.data.token_facts import TokenFacts
from megatron_jobs.data.token_file import TokenFile
from megatron_jobs.runtime.files import file_hash
from megatron_jobs.runtime.rank import ALONE
from megatron_jobs.stages.tokenize import _Work
from megatron_jobs.stages.tokenizer import Config, run
from megatron_jobs.text.sentences import SentenceSplitter, load_punkt, train_punkt
from tests.megatron_datasets import megatron_datasets
from tools import merge_datasets, preprocess_data

BOOKS = Path(__file__).parents[3] / "megatron_jobs/plans/books.jsonl"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """corpus.jsonl with texts and titles, and a tokenizer whose template begins each text."""
    folder = tmp_path_factory.mktemp("corpus")
    lines = BOOKS.read_text().splitlines()[:3]
    texts = [json.loads(line)["text"][:3000] for line in lines]
    texts += ["one", "", "Tail <|endoftext|> of Mr. Bennet.  It was 1.5 m."]
    lines = [json.dumps({"text": text, "title": f"No. {n}"}) for n, text in enumerate(texts)]
    (folder / "corpus.jsonl").write_text("\n".join(lines) + "\n")
    run(Config(input=[BOOKS], vocab_size=400), ALONE, folder)
    tokenizer = json.loads((folder / "tokenizer/tokenizer.json").read_text())
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {
            "<|im_start|>": {"id": "<|im_start|>", "ids": [2], "tokens": ["<|im_start|>"]}
        },
    }
    (folder / "tokenizer/tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


def flags(corpus: Path, out: Path, *others: str) -> list[str]:
    words = f"--input {corpus}/corpus.jsonl --output-prefix {out} --workers 2"
    words += f" --tokenizer-type HuggingFaceTokenizer --tokenizer-model {corpus}/tokenizer"
    return [*words.split(), *others, "--max-rejected-share", "0.5"]


def by_megatron(prefix: Path, documents: list[list[list[int]]]) -> tuple[bytes, bytes]:
    """What megatron-core's builder writes of the sequences of documents."""
    builder = megatron_datasets().indexed_dataset.IndexedDatasetBuilder(
        f"{prefix}.bin", dtype=np.uint16
    )
    for sequences in documents:
        ids = [token for sequence in sequences for token in sequence]
        builder.add_document(ids, [len(sequence) for sequence in sequences])
    builder.finalize(f"{prefix}.idx")
    return Path(f"{prefix}.bin").read_bytes(), Path(f"{prefix}.idx").read_bytes()


def both(prefix: Path) -> tuple[bytes, bytes]:
    return Path(f"{prefix}.bin").read_bytes(), Path(f"{prefix}.idx").read_bytes()


def texts_of(corpus: Path, key: str) -> list[str]:
    lines = (corpus / "corpus.jsonl").read_text().splitlines()
    return [text for text in (json.loads(line)[key] for line in lines) if text]


@pytest.mark.parametrize("eod", [False, True])
@pytest.mark.parametrize("special", [False, True])
def test_each_key_equals_megatron(tmp_path: Path, corpus: Path, eod: bool, special: bool) -> None:
    others = ["--json-keys", "text", "title"] + ["--append-eod"] * eod
    others += ["--tokenizer-hf-no-include-special-tokens"] * (not special)
    assert preprocess_data.main(flags(corpus, tmp_path / "out", *others)) == 0
    encode = AutoTokenizer.from_pretrained(corpus / "tokenizer")
    for key in ("text", "title"):
        documents = [
            [encode(text, add_special_tokens=special).input_ids + [0] * eod]
            for text in texts_of(corpus, key)
        ]
        assert both(tmp_path / f"out_{key}_document") == by_megatron(tmp_path / "their", documents)
    names = {path.name for path in tmp_path.glob("out*")} - {"out_text_document.rejected.jsonl"}
    suffixes = ("bin", "idx", "json")
    assert names == {f"out_{key}_document.{s}" for key in ("text", "title") for s in suffixes}
    (record,) = map(json.loads, (tmp_path / "out_text_document.rejected.jsonl").open())
    assert (record["line"], record["reason"]) == (5, "empty")


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("partitions", [1, 3])
def test_sentences_equal_megatron(
    tmp_path: Path, corpus: Path, keep: bool, partitions: int
) -> None:
    """In one run, however many partitions."""
    others = ["--split-sentences", "--append-eod", "--partitions", str(partitions)]
    others += ["--keep-newlines"] * keep
    assert preprocess_data.main(flags(corpus, tmp_path / "out", *others)) == 0
    encode = AutoTokenizer.from_pretrained(corpus / "tokenizer")
    texts = texts_of(corpus, "text")
    splitter = SentenceSplitter(train_punkt(texts), keep_space=keep)
    documents = [[encode(s).input_ids for s in splitter.split(text)] for text in texts]
    for sequences in documents:
        sequences[-1].append(0)
    assert both(tmp_path / "out_text_sentence") == by_megatron(tmp_path / "their", documents)
    assert len(TokenFile.open(tmp_path / "out_text_sentence")) > 2 * len(texts)


def test_a_model_of_nltk_data_is_taken(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that knows no abbreviation cuts after every 'Mr.'."""
    folder = tmp_path / "tokenizers/punkt_tab/english"
    folder.mkdir(parents=True)
    for name in ("collocations.tab", "sent_starters.txt", "abbrev_types.txt", "ortho_context.tab"):
        (folder / name).touch()
    monkeypatch.setenv("NLTK_DATA", str(tmp_path))
    assert preprocess_data.main(flags(corpus, tmp_path / "out", "--split-sentences")) == 0
    splitter = SentenceSplitter(load_punkt(folder), keep_space=False)
    sentences = sum(len(splitter.split(text)) for text in texts_of(corpus, "text"))
    assert len(TokenFile.open(tmp_path / "out_text_sentence")) == sentences


OF_MEGATRON = """
    --input --json-keys --split-sentences --keep-newlines --append-eod --lang --output-prefix
    --workers --find-optimal-num-workers --workers-to-check --max-documents --partitions
    --log-interval --keep-sequential-samples
    --vocab-size --padded-vocab-size --no-pad-vocab-size --disable-pad-vocab-size --vocab-file
    --merge-file --vocab-extra-ids --tokenizer-type --tokenizer-model --tokenizer-metadata
    --tokenizer-special-tokens --tiktoken-pattern --tiktoken-num-special-tokens
    --tokenizer-sentencepiece-legacy --no-tokenizer-sentencepiece-ignore-extra-whitespaces
    --disable-tokenizer-sentencepiece-ignore-extra-whitespaces --tokenizer-hf-no-use-fast
    --tokenizer-hf-no-include-special-tokens --trust-remote-code --null-tokenizer-eod-id
    --null-tokenizer-pad-id --chat-template --use-gigatoken
"""
"""All flags of Megatron-LM's tools/preprocess_data.py at d98e8a64 (2026-08-22)."""
SWITCHES = (
    *("--split-sentences", "--append-eod", "--keep-sequential-samples", "--use-gigatoken"),
    *("--no-pad-vocab-size", "--disable-pad-vocab-size", "--keep-newlines"),
    "--tokenizer-hf-no-include-special-tokens",
)
VALUES = {"--tokenizer-type": preprocess_data.TOKENIZER}


@pytest.mark.parametrize("flag", OF_MEGATRON.split())
def test_every_flag_of_megatron_works_or_is_refused_with_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    words = [flag] if flag in SWITCHES else [flag, VALUES.get(flag, "1")]
    try:
        preprocess_data.read_flags(flags(tmp_path, tmp_path / "out", *words))
    except SystemExit:
        errors = capsys.readouterr().err
        assert flag in preprocess_data.REFUSED
        assert f"error: {flag}: not supported here; {preprocess_data.REFUSED[flag]}\n" in errors
    else:
        assert flag not in preprocess_data.REFUSED


def test_flags_without_effect_change_nothing(tmp_path: Path, corpus: Path) -> None:
    assert preprocess_data.main(flags(corpus, tmp_path / "bare")) == 0
    others = "--padded-vocab-size 512 --no-pad-vocab-size --vocab-extra-ids 3 --chat-template x"
    others += " --keep-sequential-samples --log-interval 2 --use-gigatoken --partitions 2"
    assert preprocess_data.main(flags(corpus, tmp_path / "full", *others.split())) == 0
    assert both(tmp_path / "full_text_document") == both(tmp_path / "bare_text_document")


def test_a_pattern_names_several_files(tmp_path: Path, corpus: Path) -> None:
    """Packed ones too, one after the other by name."""
    lines = (corpus / "corpus.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "shard_0.jsonl").write_bytes(b"".join(lines[:2]))
    (tmp_path / "shard_1.jsonl.gz").write_bytes(gzip.compress(b"".join(lines[2:])))
    words = flags(corpus, tmp_path / "out")
    words[1] = f"{tmp_path}/shard_*"
    assert preprocess_data.main(words) == 0
    assert preprocess_data.main(flags(corpus, tmp_path / "whole")) == 0
    assert both(tmp_path / "out_text_document") == both(tmp_path / "whole_text_document")


@pytest.mark.parametrize(
    ("others", "message"),
    [
        (["--vocab-size", "x"], "--vocab-size: not supported here; the tokenizer says it"),
        (["--partitions", "0"], "--partitions: found 0, must be at least 1"),
        (["--find-optimal-num-workers"], "--find-optimal-num-workers: not supported here; take"),
        (["--tokenizer-type", "GPT2BPETokenizer"], "--vocab-file: missing; GPT2BPETokenizer needs"),
        (["--tokenizer-type", "TikTokenizer"], "found TikTokenizer, only HuggingFaceTokenizer and"),
        (["--tokenizer-type", "Llama2Tokenizer"], "the tokenizer stage makes a tokenizer.json of"),
        (["--workers", "0"], "--workers: found 0, must be at least 1"),
        (["--no-such-flag"], "unrecognized arguments: --no-such-flag"),
    ],
)
def test_flags_that_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], others: list[str], message: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        preprocess_data.main(flags(tmp_path, tmp_path / "out", *others))
    assert message in capsys.readouterr().err


def test_what_is_not_there_is_named(
    tmp_path: Path, corpus: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = flags(corpus, tmp_path / "out")
    assert preprocess_data.main([*words, "--input", "none.jsonl"]) == 2
    assert preprocess_data.main([*words, "--tokenizer-model", "gpt2"]) == 2
    assert preprocess_data.main([*words, "--keep-newlines"]) == 2
    assert preprocess_data.main([*words, "--max-rejected-share", "0"]) == 2
    errors = capfd.readouterr().err
    assert "preprocess_data: --input: none.jsonl: no such file\n" in errors
    assert "--tokenizer-model: gpt2: no such folder; save a tokenizer of the hub there" in errors
    assert "split_sentences: is false: keep_newlines and punkt would do nothing" in errors
    assert "input: 1 of 6 lines are no documents (1 empty), at most 0.0% may be" in errors


@pytest.mark.parametrize("workers", [1, 3])
def test_a_worker_that_cannot_start_ends_the_job_with_its_cause(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """No worker is started again and again, and nothing is left that looks like a dataset."""
    folder = tmp_path / "nltk/tokenizers/punkt_tab/english"
    folder.mkdir(parents=True)
    words = [*flags(corpus, tmp_path / "out", "--split-sentences"), "--workers", str(workers)]
    command = [sys.executable, "tools/preprocess_data.py", *words]
    ended = subprocess.run(
        command,
        env=os.environ | {"NLTK_DATA": str(tmp_path / "nltk"), "PYTHONPATH": "."},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2
    assert "english: has no abbrev_types.txt, collocations.tab" in ended.stderr
    assert not list(tmp_path.glob("out*.bin")) + list(tmp_path.glob("out*.idx"))


def test_a_worker_that_is_killed_ends_the_job_with_its_cause(
    tmp_path: Path,
    corpus: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Nobody waits for its parts, and the next run goes on."""
    make_parts = _Work.make_parts

    def die(work: _Work) -> None:
        if work.rank.index == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        make_parts(work)

    with monkeypatch.context() as patch:
        patch.setattr(_Work, "make_parts", die)
        assert preprocess_data.main(flags(corpus, tmp_path / "out")) == 128 + signal.SIGKILL
    said = "preprocess_data: worker 1 was ended by SIGKILL; run again to go on\n"
    assert said in capfd.readouterr().err
    assert not list(tmp_path.glob("out*.bin")) + list(tmp_path.glob("out*.idx"))
    assert preprocess_data.main(flags(corpus, tmp_path / "out")) == 0
    assert preprocess_data.main(flags(corpus, tmp_path / "whole")) == 0
    assert both(tmp_path / "out_text_document") == both(tmp_path / "whole_text_document")


def test_what_stale_files_hold_never_becomes_a_dataset(tmp_path: Path, corpus: Path) -> None:
    """Those that Megatron-LM's tool would take, and parts that a lost node left empty."""
    (tmp_path / "corpus.jsonl").write_bytes((corpus / "corpus.jsonl").read_bytes())
    words = flags(corpus, tmp_path / "out", "--split-sentences")
    words[1] = str(tmp_path / "corpus.jsonl")
    assert preprocess_data.main(words) == 0
    wanted = both(tmp_path / "out_text_sentence")
    for name in ("corpus_ss.jsonl", "corpus_0.jsonl", "out_text_sentence.bin"):
        (tmp_path / name).write_bytes(b"")
    asked = preprocess_data.read_flags(words)
    work = tmp_path / "out_text_sentence.work"
    config = preprocess_data.make_config(asked, "text", work)
    preprocess_data.begin(work, config)
    home = _Work(config, work, ALONE).home
    for part in range(4):
        (home / f"part-00000{part}").mkdir(parents=True)
        (home / f"part-00000{part}/tokens.bin").touch()
    assert preprocess_data.main(words) == 0
    assert both(tmp_path / "out_text_sentence") == wanted


def test_gpt2s_two_files_are_a_tokenizer(tmp_path: Path, corpus: Path) -> None:
    made = json.loads((corpus / "tokenizer/tokenizer.json").read_text())
    vocab = {token: place for place, token in enumerate(made["model"]["vocab"])}
    (tmp_path / "vocab.json").write_text(json.dumps(vocab))
    merges = "\n".join(" ".join(pair) for pair in made["model"]["merges"])
    (tmp_path / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    words = f"--tokenizer-type GPT2BPETokenizer --vocab-file {tmp_path}/vocab.json"
    others = [*words.split(), "--merge-file", f"{tmp_path}/merges.txt", "--append-eod"]
    assert preprocess_data.main(flags(corpus, tmp_path / "out", *others)) == 0
    theirs = GPT2TokenizerFast.from_pretrained(tmp_path)
    assert theirs.eos_token_id is not None
    ids = [[[*theirs(t).input_ids, theirs.eos_token_id]] for t in texts_of(corpus, "text")]
    assert both(tmp_path / "out_text_document") == by_megatron(tmp_path / "their", ids)


def test_names_are_written_when_asked_for(tmp_path: Path, corpus: Path, earlier: Path) -> None:
    assert preprocess_data.main(flags(corpus, tmp_path / "out", "--names")) == 0
    assert list(DocumentNames.open(earlier)) == [f"corpus.jsonl:{n}" for n in (1, 2, 3, 4, 6)]
    assert preprocess_data.main(flags(corpus, tmp_path / "out")) == 0
    assert not Path(f"{earlier}.names").exists()


class Killed(BaseException):
    """Stands for a signal."""


@pytest.fixture
def earlier(tmp_path: Path, corpus: Path) -> Path:
    """A prefix under which a run over another corpus has left tokens and a rejected line."""
    (tmp_path / "corpus.jsonl").write_text('{"text": ""}\n{"text": "It was."}\n')
    words = flags(corpus, tmp_path / "out")
    words[1] = str(tmp_path / "corpus.jsonl")
    assert preprocess_data.main(words) == 0
    assert (tmp_path / "out_text_document.rejected.jsonl").exists()
    return tmp_path / "out_text_document"


@pytest.mark.parametrize("moves", range(4))
def test_publishing_goes_on_after_a_kill(
    tmp_path: Path, corpus: Path, earlier: Path, monkeypatch: pytest.MonkeyPatch, moves: int
) -> None:
    """Whatever was moved before it; until all are, the old .idx does not vouch for the new .bin."""
    assert preprocess_data.main(flags(corpus, tmp_path / "whole")) == 0
    moved: list[str] = []

    def move(source: Path, out: Path) -> None:
        if len(moved) == moves:
            raise Killed
        moved.append(str(out))
        os.rename(source, out)

    with monkeypatch.context() as patch:
        patch.setattr(preprocess_data, "os", SimpleNamespace(replace=move, environ=os.environ))
        with pytest.raises(Killed):
            preprocess_data.main(flags(corpus, tmp_path / "out"))
    assert len(moved) == moves
    assert not Path(f"{earlier}.idx").exists()
    with monkeypatch.context() as patch:
        patch.setattr(preprocess_data, "fork_ranks", None)  # nothing is left to be tokenized
        assert preprocess_data.main(flags(corpus, tmp_path / "out")) == 0
    for suffix in ("bin", "idx", "json", "rejected.jsonl"):
        whole = Path(f"{tmp_path}/whole_text_document.{suffix}")
        assert Path(f"{earlier}.{suffix}").read_bytes() == whole.read_bytes()
    assert not list(tmp_path.glob("*.work"))


def test_what_a_kill_left_is_not_published_for_other_settings(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(preprocess_data, "publish", lambda *_: None)
        assert preprocess_data.main(flags(corpus, tmp_path / "out")) == 0
    assert preprocess_data.main(flags(corpus, tmp_path / "out", "--append-eod")) == 0
    assert preprocess_data.main(flags(corpus, tmp_path / "new", "--append-eod")) == 0
    assert both(tmp_path / "out_text_document") == both(tmp_path / "new_text_document")


def test_rejects_of_an_earlier_run_do_not_stay(tmp_path: Path, corpus: Path, earlier: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text('{"text": "It was."}\n')
    words = flags(corpus, tmp_path / "out")
    words[1] = str(tmp_path / "corpus.jsonl")
    assert preprocess_data.main(words) == 0
    assert not Path(f"{earlier}.rejected.jsonl").exists()


def test_merged_files_equal_one(tmp_path: Path, corpus: Path) -> None:
    lines = (corpus / "corpus.jsonl").read_text().splitlines()
    (tmp_path / "parts").mkdir()
    for part in range(2):
        (tmp_path / "corpus.jsonl").write_text("\n".join(lines[3 * part : 3 * part + 3]))
        words = flags(corpus, tmp_path / f"parts/{part}", "--names")
        words[1] = str(tmp_path / "corpus.jsonl")
        assert preprocess_data.main(words) == 0
    assert preprocess_data.main(flags(corpus, tmp_path / "whole")) == 0
    merge = ["--input", str(tmp_path / "parts"), "--output-prefix", str(tmp_path / "merged")]
    assert merge_datasets.main(merge) == 0
    assert both(tmp_path / "merged") == both(tmp_path / "whole_text_document")
    whole = TokenFacts.read(tmp_path / "whole_text_document")
    facts = TokenFacts.read(tmp_path / "merged")
    assert facts.names_hash == file_hash(tmp_path / "merged.names")
    assert replace(facts, names_hash=None) == whole
    names = [list(DocumentNames.open(tmp_path / f"parts/{n}_text_document")) for n in range(2)]
    assert list(DocumentNames.open(tmp_path / "merged")) == names[0] + names[1]
