"""The index stage: settings to index; sample for sample it is tested in unit/data."""

from pathlib import Path

import numpy as np
import pytest

from megatron_jobs.config.settings import all_problems, input_paths
from megatron_jobs.data.sample_index import SampleIndex
from megatron_jobs.data.token_facts import TokenFacts
from megatron_jobs.data.token_file import TokenFile, write_token_file
from megatron_jobs.errors import DataError, UserError
from megatron_jobs.runtime.files import read_json, tree_hash, write_json
from megatron_jobs.runtime.rank import ALONE, Rank
from megatron_jobs.stages.index import Config, run


def make_tokens(folder: Path, documents: int, seed: int = 0) -> Path:
    """A folder as the tokenize stage leaves it."""
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 50, documents)
    prefix = folder / "tokens"
    with write_token_file(prefix, vocab_size=300) as writer:
        writer.add(random.integers(0, 300, lengths.sum()), lengths.tolist())
    bare = TokenFacts.of_bare_file(prefix, documents=documents, tokens=int(lengths.sum()))
    known = {"vocab_size": 300, "eod": 7, "tokenizer_hash": "h", "text_bytes": 9000}
    TokenFacts(**(vars(bare) | known)).write(prefix)
    return folder


def test_one_source(tmp_path: Path) -> None:
    tokens = make_tokens(tmp_path / "tokens", 100)
    config = Config(tokens=[{"path": tokens}], seq_len=8, train_samples=50, test_samples=None)
    numbers = run(config, ALONE, tmp_path / "job")
    index = SampleIndex.open(tmp_path / "job/index")
    assert (index.seq_len, index.vocab_size, index.eod, index.tokenizer_hash) == (8, 300, 7, "h")
    assert index.facts["sources"][0]["text_bytes"] == 9000
    assert numbers["documents"] == 100
    for split in ("train", "valid", "test"):
        assert len(index.split(split)) == numbers[f"{split}_samples"] > 0
    assert run(config, Rank(index=1, world=2), tmp_path / "other") == {}


def test_a_blend_of_a_folder_and_a_bare_file(tmp_path: Path) -> None:
    tokens = make_tokens(tmp_path / "tokens", 100)
    (tmp_path / "tokens/tokens.json").unlink()
    both = [{"path": tokens, "weight": 3}, {"path": tokens / "tokens.bin", "weight": 1}]
    config = Config(tokens=both, seq_len=8, train_samples=400, valid_samples=0)
    run(config, ALONE, tmp_path / "job")
    index = SampleIndex.open(tmp_path / "job/index")
    train = index.split("train")
    assert train.blend is not None
    assert train.blend.taken(400) == [300, 100]
    assert len(index.split("valid")) == 0
    ids = np.fromfile(tokens / "tokens.bin", np.uint16)
    assert index.vocab_size == ids.max() + 1


def test_bare_files_say_the_largest_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it stands, though the file is looked at in pieces."""
    monkeypatch.setattr("megatron_jobs.data.token_file.LOOK_TOKENS", 7)
    for place in (0, 6, 7, 19):
        ids = np.full(20, 3)
        ids[place] = 40 + place
        with write_token_file(tmp_path / f"{place}", vocab_size=100) as writer:
            writer.add(ids, [11, 9])
    paths = [tmp_path / f"{place}.bin" for place in (0, 6, 19, 7)]
    for chosen, vocab in ((paths, 60), (paths[:1], 41), (paths[1:2], 47), (paths[3:], 48)):
        sources = [{"path": path} for path in chosen]
        config = Config(tokens=sources, split="1", seq_len=4, valid_samples=0)
        run(config, ALONE, tmp_path / "job")
        assert SampleIndex.open(tmp_path / "job/index").vocab_size == vocab


def test_an_id_below_zero_is_found(tmp_path: Path) -> None:
    with write_token_file(tmp_path / "bare", vocab_size=70_000) as writer:
        writer.add([1, 2, 3], [3])
    np.array([1, -2, 3], np.int32).tofile(tmp_path / "bare.bin")
    with pytest.raises(DataError, match=r"bare\.bin: token 1: found -2, ids must not be negative"):
        run(Config(tokens=[{"path": tmp_path / "bare.bin"}]), ALONE, tmp_path)


def test_sources_without_weights_are_gone_through_once(tmp_path: Path) -> None:
    paths = [make_tokens(tmp_path / f"{seed}", 100, seed) for seed in range(2)]
    sources = [{"path": path} for path in paths]
    config = Config(tokens=sources, split="1", seq_len=8, valid_samples=0)
    held = int(run(config, ALONE, tmp_path / "job")["train_samples"])
    enough = config.model_copy(update={"train_samples": held})
    assert run(enough, ALONE, tmp_path / "job")["train_samples"] == held
    more = config.model_copy(update={"train_samples": held + 1})
    found = f"train_samples: {held + 1} are asked of sources without weights, which hold {held} in"
    with pytest.raises(UserError, match=f"{found} one epoch; give weights, or ask for {held} at m"):
        run(more, ALONE, tmp_path / "job")
    weighted = [source | {"weight": 1} for source in sources]
    cured = Config(tokens=weighted, split="1", seq_len=8, train_samples=held + 1, valid_samples=0)
    assert run(cured, ALONE, tmp_path / "job")["train_samples"] > held


def test_an_index_without_a_vocabulary_is_refused(tmp_path: Path) -> None:
    tokens = make_tokens(tmp_path / "tokens", 100)
    run(Config(tokens=[{"path": tokens}], seq_len=8), ALONE, tmp_path / "job")
    path = tmp_path / "job/index/index.json"
    write_json(path, read_json(path) | {"vocab_size": None})
    with pytest.raises(DataError, match=r"vocab_size: found None, must be a number; build it aga"):
        SampleIndex.open(tmp_path / "job/index")


def test_running_again_gives_the_same_bytes(tmp_path: Path) -> None:
    tokens = make_tokens(tmp_path / "tokens", 100)
    config = Config(tokens=[{"path": tokens, "weight": 1}], seq_len=8, train_samples=50,
                    valid_samples=5)  # fmt: skip
    run(config, ALONE, tmp_path / "job")
    first = tree_hash(tmp_path / "job/index")
    run(config, ALONE, tmp_path / "job")
    assert tree_hash(tmp_path / "job/index") == first


def test_a_split_without_documents_is_refused(tmp_path: Path) -> None:
    tokens = make_tokens(tmp_path / "tokens", 10)
    with pytest.raises(UserError, match=r"split: 98,1,1 leaves valid none of .*'s 10 docume"):
        run(Config(tokens=[{"path": tokens}], seq_len=8, valid_samples=3), ALONE, tmp_path / "job")
    assert not (tmp_path / "job/index").exists()


def test_tokens_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "x.txt").touch()
    with pytest.raises(UserError, match=r"x\.txt: must be a folder of the tokenize stage, or a "):
        run(Config(tokens=[{"path": tmp_path / "x.txt"}]), ALONE, tmp_path)
    with pytest.raises(DataError, match=r"tokens\.bin: no such file|tokens\.idx: no such file"):
        run(Config(tokens=[{"path": tmp_path}]), ALONE, tmp_path)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"version": 2}, r"tokens\.json: version: found 2, only 1 can be read"),
        ({"version": 1, "vocab_size": None}, r"tokens\.json: vocab_size: missing; without it"),
        (
            {"version": 1, "vocab_size": 9, "words": 1},
            r"tokens\.json: not the facts of a token file: TypeError",
        ),
        ([], r"tokens\.json: not the facts of a token file"),
        (
            {
                "version": 1,
                "vocab_size": 9,
                "documents": 9,
                "tokens": 8,
                "bin_hash": "",
                "idx_hash": "",
            },
            r"tokens\.json tells of 8 tokens, .*\.idx of \d+; they do not belong together",
        ),
    ],
)
def test_facts_that_lie(tmp_path: Path, facts: object, message: str) -> None:
    tokens = make_tokens(tmp_path / "tokens", 10)
    write_json(tokens / "tokens.json", facts)
    with pytest.raises(DataError, match=message):
        run(Config(tokens=[{"path": tokens}]), ALONE, tmp_path)


def test_settings_that_cannot_work(tmp_path: Path) -> None:
    config = Config(
        tokens=[{"path": tmp_path, "weight": -1}, {"path": tmp_path}],
        split="a",
        seq_len=0,
        seed=-1,
        train_samples=-1,
    )
    assert list(all_problems(config)) == [
        ("tokens", "found weights [-1.0, None]; give one to all sources or to none"),
        ("tokens", "found weights [-1.0, None]; all must be positive"),
        ("seq_len", "0 must be from 1 to 2147483646"),
        ("seed", "-1 must be from 0 to 4294967295"),
        ("train_samples", "-1 is negative; 0 for none, null for one epoch"),
        ("valid_samples", "a blend by weights needs a number; null takes whole epochs"),
        ("split", "found 'a', must be one to three numbers such as 98,1,1"),
    ]
    assert dict(all_problems(Config(tokens=[])))["tokens"].startswith("found nothing")
    assert [name for name, _ in input_paths(config)] == ["tokens.0.path", "tokens.1.path"]


@pytest.mark.parametrize(
    ("packing", "longest", "message"),
    [
        ("none", 2**31 - 2, "2147483647 must be from 1 to 2147483646"),
        ("best_fit", 2**24, "16777217 is too long to be packed; take at most 16777216"),
    ],
)
def test_the_longest_sample_and_one_beyond(
    tmp_path: Path, packing: str, longest: int, message: str
) -> None:
    known = {"tokens": [{"path": make_tokens(tmp_path / "tokens", 10)}], "packing": packing}
    config = Config(**known, seq_len=longest, split="1", train_samples=1, valid_samples=0)
    assert list(all_problems(config)) == []
    assert packing == "none" or run(config, ALONE, tmp_path / "job")["train_samples"] == 1
    beyond = Config(**known, seq_len=longest + 1)
    assert list(all_problems(beyond)) == [("seq_len", message)]


def test_packed_samples_and_how_well_they_were_packed(tmp_path: Path) -> None:
    paths = [make_tokens(tmp_path / f"{seed}", 100, seed) for seed in range(2)]
    config = Config(tokens=[{"path": path} for path in paths], split="1", seq_len=16,
                    packing="best_fit", valid_samples=0)  # fmt: skip
    numbers = run(config, ALONE, tmp_path / "job")
    train = SampleIndex.open(tmp_path / "job/index").split("train")
    rows = np.stack([train[i] for i in range(len(train))])
    lengths = np.concatenate([TokenFile.open(path / "tokens").lengths for path in paths])
    assert numbers["padding"] == pytest.approx(np.mean(rows == -1))
    assert numbers["documents_cut"] == (lengths > 17).sum()
    assert numbers["documents_left_out"] == (lengths < 2).sum()


def test_easy_samples_first_and_other_weights_later(tmp_path: Path) -> None:
    paths = [make_tokens(tmp_path / f"{seed}", 300, seed) for seed in range(2)]
    np.save(tmp_path / "scores.npy", np.arange(300))
    sources = [{"path": path, "scores": tmp_path / "scores.npy"} for path in paths]
    phases = [{"until": 0.5, "weights": [1, 0]}, {"until": 1, "weights": [1, 3]}]
    config = Config(tokens=sources, split="8,2", seq_len=16, train_samples=400, valid_samples=40,
                    phases=phases, curriculum={"by": "score", "start": 0.1})  # fmt: skip
    run(config, ALONE, tmp_path / "job")
    index = SampleIndex.open(tmp_path / "job/index")
    train, valid = index.split("train"), index.split("valid")
    assert (len(train), len(valid)) == (400, 40)
    assert train.blend is not None
    assert valid.blend is not None
    shares = [np.bincount([train.blend[i][0] for i in part], minlength=2).tolist()
              for part in (range(200), range(200, 400))]  # fmt: skip
    assert shares == [[200, 0], [50, 150]]
    assert np.bincount([valid.blend[i][0] for i in range(40)]).tolist() == [25, 15]
    first = [int(train.orders[0].shuffle[i]) for i in range(250)]
    assert sorted(first) == sorted(set(first))
    assert np.mean(first[:25]) < 0.5 * np.mean(first[200:])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            {"phases": [{"until": 0.5, "weights": [1]}], "train_samples": 9, "valid_samples": 0},
            ("phases", "found ends [0.5]; they must rise from above 0 to 1"),
        ),
        (
            {"phases": [{"until": 1, "weights": [1]}]},
            ("train_samples", "a blend by weights needs a number; null takes whole epochs"),
        ),
        (
            {"curriculum": {"by": "score"}},
            ("tokens.0.scores", "must be set for a curriculum by score"),
        ),
        (
            {"curriculum": {"start": 0.0}},
            ("curriculum.start", "0.0 is not a share; it must be in (0, 1]"),
        ),
    ],
)
def test_orders_that_cannot_be(
    change: dict[str, object], problem: tuple[str, str], tmp_path: Path
) -> None:
    config = Config(tokens=[{"path": tmp_path}], **change)
    assert next(all_problems(config)) == problem


def test_scores_and_weights_that_nobody_reads(tmp_path: Path) -> None:
    phases = [{"until": 1, "weights": [1]}]
    source = {"path": tmp_path, "weight": 2, "scores": tmp_path}
    config = Config(tokens=[source], phases=phases, train_samples=9, valid_samples=9)
    assert list(all_problems(config)) == [
        ("phases", "give weights to the phases or to the sources, not to both"),
        ("tokens.0.scores", "is not read without curriculum.by: score"),
    ]
