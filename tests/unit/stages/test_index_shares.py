"""The index stage's shares by rule, what it shows of them, and runs that change their mix."""

from pathlib import Path
from typing import Any

import pytest

from megatron_jobs.config.resources import Resources
from megatron_jobs.config.settings import all_problems, input_paths
from megatron_jobs.data.document_names import write_document_names
from megatron_jobs.data.sample_index import SampleIndex
from megatron_jobs.data.token_file import write_token_file
from megatron_jobs.errors import UserError
from megatron_jobs.runtime.rank import ALONE
from megatron_jobs.stages.index import Config, describe, foresee, run

KINDS = ("web", "code", "code")


def make_tokens(prefix: Path, tokens: int, first: int = 0) -> Path:
    """Documents of ten tokens, each token another one."""
    with write_token_file(prefix, vocab_size=1 << 20) as writer:
        writer.add(range(first, first + tokens), [10] * (tokens // 10))
    return prefix.with_suffix(".bin")


def make_config(folder: Path, **settings: Any) -> Config:
    """Sources of 4,000, 1,000 and 9,000 tokens: a web page and two of code."""
    sizes = {"a": 4000, "b": 1000, "c": 9000}
    sources = [
        {"path": make_tokens(folder / name, size, 20_000 * place), "kind": kind}
        for (place, (name, size)), kind in zip(enumerate(sizes.items()), KINDS, strict=True)
    ]
    known = {"tokens": sources, "split": "1", "seq_len": 8, "valid_samples": 0}
    return Config(**(known | {"train_samples": 1000} | settings))


def taken_by(config: Config, folder: Path) -> list[int]:
    run(config, ALONE, folder)
    blend = SampleIndex.open(folder / "index").split("train").blend
    assert blend is not None
    return blend.taken(1000)


@pytest.mark.parametrize(
    ("shares", "taken"),
    [
        ({"by": "size"}, [285.7, 71.4, 642.9]),
        ({"by": "size", "temperature": 2}, [333.3, 166.7, 500]),
        ({"by": "seeds"}, [896.6, 10.3, 93.1]),
    ],
)
def test_shares_by_rule(tmp_path: Path, shares: dict[str, Any], taken: list[float]) -> None:
    config = make_config(tmp_path, shares=shares)
    assert taken_by(config, tmp_path / "job") == pytest.approx(taken, abs=1)


def test_shares_and_epochs_are_shown(tmp_path: Path) -> None:
    config = make_config(tmp_path, shares={"by": "size", "temperature": 2}, split="50,50")
    assert describe(config, Resources()) == [
        ("share of tokens.0", "33.3 %, 1.33 epochs of 2,000 tokens"),
        ("share of tokens.1", "16.7 %, 2.67 epochs of 500 tokens"),
        ("share of tokens.2", "50.0 %, 0.89 epochs of 4,500 tokens"),
    ]
    whole = make_config(tmp_path, train_samples=None)
    assert describe(whole, Resources())[0] == ("share of tokens.0", "28.6 %")


def test_what_is_shown_before_the_tokens_are_there(tmp_path: Path) -> None:
    paths = [{"path": tmp_path / "job/tokens", "kind": kind} for kind in ("web", "books")]

    def shown(**settings: Any) -> list[tuple[str, str]]:
        known = {"tokens": paths, "train_samples": 9, "valid_samples": 0}
        return describe(Config(**(known | settings)), Resources())

    assert shown(shares={"by": "size"}) == [("shares", "by size; known when the tokens are there")]
    assert shown() == [("shares", "all that each source holds, once")]
    assert shown(shares={"by": "seeds"}) == [
        ("share of tokens.0", "78.8 %"),
        ("share of tokens.1", "21.2 %"),
    ]
    weighted = [path | {"weight": weight} for path, weight in zip(paths, (1, 3), strict=True)]
    assert shown(tokens=weighted)[1] == ("share of tokens.1", "75.0 %")


def test_shares_that_cannot_be(tmp_path: Path) -> None:
    config = Config(
        tokens=[{"path": tmp_path, "weight": 1}],
        shares={"by": "seeds", "temperature": 2},
        phases=[{"until": 1, "weights": [1]}],
        train_samples=9,
    )
    assert list(all_problems(config)) == [
        ("shares.by", "seeds gives the weights; leave out those of the tokens"),
        ("shares.by", "seeds gives the weights; leave out the phases"),
        ("tokens.0.kind", "must be one of web, books, papers, code, reference"),
        ("phases", "give weights to the phases or to the sources, not to both"),
        ("valid_samples", "a blend by weights needs a number; null takes whole epochs"),
        ("shares.temperature", "is not read with by: seeds; take by: size, or leave it out"),
    ]
    cold = Config(tokens=[{"path": tmp_path}], shares={"by": "size", "temperature": 0})
    found = dict(all_problems(cold))
    assert found["shares.temperature"] == "0.0 must be above 0; 1 for the sizes themselves"
    assert "needs a number" in found["train_samples"]


def test_a_run_that_changes_its_mix(tmp_path: Path) -> None:
    """Every token is another one: what was trained on is seen in the samples themselves."""
    one = make_config(tmp_path, shares={"by": "size"}, train_samples=400)
    run(one, ALONE, tmp_path / "one")
    changed = {"earlier": tmp_path / "one/index", "earlier_samples": 300, "seed": 7}
    two = make_config(tmp_path, shares={"by": "seeds"}, train_samples=400, **changed)
    assert ("earlier", tmp_path / "one/index") in list(input_paths(two))
    run(two, ALONE, tmp_path / "two")
    before = SampleIndex.open(tmp_path / "one/index").split("train")
    after = SampleIndex.open(tmp_path / "two/index").split("train")
    starts = [int(before[n][0]) for n in range(300)] + [int(after[n][0]) for n in range(400)]
    assert len(set(starts)) == 700


@pytest.mark.parametrize(
    "shares", [{"by": "hand"}, {"by": "size"}, {"by": "seeds"}, {"by": "size", "temperature": 9}]
)
def test_a_source_without_a_token_has_no_share(tmp_path: Path, shares: dict[str, Any]) -> None:
    config = make_config(tmp_path, shares=shares)
    with write_token_file(tmp_path / "b", vocab_size=9) as writer:
        writer.add([], [0, 0])
    with pytest.raises(UserError, match=r"tokens: .*/b holds no token; leave it out"):
        run(config, ALONE, tmp_path / "job")


def test_a_file_that_changed_under_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is said of each source how it begins, and of each one that is no more there."""
    one = make_config(tmp_path, shares={"by": "size"}, train_samples=400)
    for name, size in (("a", 400), ("b", 100)):
        with write_document_names(tmp_path / name) as names:
            names.add_names([f"{name}{number}" for number in range(size)])
    run(one, ALONE, tmp_path / "one")
    assert capsys.readouterr().out == ""
    changed = make_tokens(tmp_path / "a2", 3990)
    with write_document_names(tmp_path / "a2") as names:
        names.add_names([f"a{number}" for number in range(399)])
    sources = [{"path": changed, "weight": 1}, {"path": tmp_path / "c.bin", "weight": 1}]
    behind = {"earlier": tmp_path / "one/index", "earlier_samples": 300}
    two = make_config(tmp_path, tokens=sources, train_samples=100, **behind)
    run(two, ALONE, tmp_path / "two")
    before, after = (SampleIndex.open(tmp_path / name / "index").split("train") for name in
                     ("one", "two"))  # fmt: skip
    given = {int(token) for n in range(300) for token in before[n] if token < 3990}
    documents = {token // 10 for token in given}
    said = f"a2: another file; {len(documents)} of its 399 train documents were given before and"
    assert capsys.readouterr().out.splitlines() == [
        f"{said} are left out of its first pass",
        f"c: goes on behind {before.blend.taken(300)[2]} samples",  # type: ignore[union-attr]
        "a: left out; its order is kept",
        "b: left out; its order is kept",
    ]
    assert not given & {int(token) for n in range(100) for token in after[n]}


def test_orders_that_cannot_go_on(tmp_path: Path) -> None:
    config = make_config(tmp_path, earlier_samples=3)
    assert list(all_problems(config)) == [
        ("earlier_samples", "3 of no index; it goes with `earlier`")
    ]
    assert list(all_problems(make_config(tmp_path, only_new_sources=True))) == [
        ("only_new_sources", "is not read without `earlier`; leave it out")
    ]
    paced = make_config(tmp_path, earlier=tmp_path, curriculum={})
    assert list(all_problems(paced)) == [
        ("curriculum", "the orders of `earlier` go on as they are; leave one of both out")
    ]
    assert list(foresee(paced, {"earlier": {"seq_len": 8}})) == []
    assert list(foresee(paced, {"earlier": {"seq_len": 16}})) == [
        ("seq_len", "8 is not that of `earlier`, 16; take the same")
    ]
