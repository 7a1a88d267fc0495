"""Sample index: the order in which training reads tokens, built once, ahead of training."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from megatron_jobs.config.curriculum import Curriculum, Phase, phase_problems
from megatron_jobs.config.resources import Resources
from megatron_jobs.config.settings import InputPath, Problem, Settings
from megatron_jobs.config.shares import Shares
from megatron_jobs.data.shares import Kind, shares_by_kind, shares_by_size
from megatron_jobs.data.splits import INT32_MAX, parse_split
from megatron_jobs.errors import DataError, UserError
from megatron_jobs.runtime.files import read_json, remove, whole_folder
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.stages import Facts

if TYPE_CHECKING:
    from megatron_jobs.data.index_plan import Source

OUTPUTS = ("index",)
RESOURCES = Resources()
LONGEST_PACKED = 1 << 24
"""Tokens; packing takes 20 bytes of memory for each token of the longest sample."""


class Tokens(Settings):
    """One source of a blend."""

    path: InputPath
    """Folder that the tokenize stage wrote, or the .bin of a token file."""
    weight: float | None = None
    """Share of the samples, in any unit; null on all sources for as much as each holds, once: only
    with weights are they gone through again."""
    kind: Kind | None = None
    """What it is made of, for shares by seeds."""
    scores: InputPath | None = None
    """For a curriculum by score: a .npy with a number for each document, in their order, or the
    records that were tokenized (JSONL), each with its number under `curriculum.key`."""


class Config(Settings):
    """Which tokens, in which proportions, cut into which samples."""

    tokens: list[Tokens]
    """The sources; several are blended."""
    shares: Shares = Shares()
    split: str = "98,1,1"
    """Shares of the documents for train, valid and test, in this order in each source."""
    seq_len: int = 2048
    """Tokens a sample trains on; it holds one more."""
    packing: Literal["none", "best_fit"] = "none"
    """How documents become samples. none: laid end to end and cut every seq_len tokens, as by
    Megatron. best_fit: side by side in samples of their own, cut only where longer than one and
    padded at the end; no target is then a token of another document."""
    curriculum: Curriculum | None = None
    """Train on easy samples first; null for a flat shuffle."""
    phases: tuple[Phase, ...] = ()
    """Weights that change over the run, in place of the sources' own, such as more code and papers
    at its end. The other splits are blended by their mean."""
    seed: int = 1234
    """Of all shuffles; from 0 to 2^32 - 1."""
    train_samples: int | None = None
    """Samples of the train split at least; 0 for none, null for one whole epoch, which is also the
    most that several sources without weights give."""
    valid_samples: int | None = None
    """The same of the validation split."""
    test_samples: int | None = 0
    """The same of the test split."""
    earlier: InputPath | None = None
    """The index of the run so far, to go on with another mix: each source that stays (its token
    file is the same, byte for byte) begins behind the train samples that it gave, in its own order.
    Of a token file that is another one, say with documents taken out, those documents that were
    given, be it in part, are left out of its first pass: they are known by their names and sizes,
    where both files have `.names` and the old one is still there. Other files begin anew; the job
    says of each source which it is. null for a run that begins. The train samples of this index are
    counted from 0 again. seq_len, split, packing and tokenizer must be the same."""
    earlier_samples: int = 0
    """How many train samples of that index were taken: steps x batch.global_size."""
    only_new_sources: bool = False
    """Whether this index may share nothing with `earlier`, which is refused otherwise."""

    def problems(self) -> Iterator[Problem]:
        """Values that cannot work together."""
        weights = [source.weight for source in self.tokens]
        if not self.tokens:
            yield "tokens", "found nothing, must name at least one token file"
        if len({weight is None for weight in weights}) > 1:
            yield "tokens", f"found weights {weights}; give one to all sources or to none"
        if any(weight is not None and not 0 < weight < float("inf") for weight in weights):
            yield "tokens", f"found weights {weights}; all must be positive"
        yield from self._share_problems()
        yield from self._order_problems()
        yield from self._length_problems()
        if not 0 <= self.seed < 2**32:
            yield "seed", f"{self.seed} must be from 0 to {2**32 - 1}"
        for name in ("train_samples", "valid_samples", "test_samples"):
            wanted = getattr(self, name)
            if wanted is not None and wanted < 0:
                yield name, f"{wanted} is negative; 0 for none, null for one epoch"
            by_rule = bool(self.phases) or self.shares.by != "hand"
            if wanted is None and (by_rule or any(w is not None for w in weights)):
                yield name, "a blend by weights needs a number; null takes whole epochs"
        try:
            parse_split(self.split)
        except UserError as error:
            yield "split", str(error).removeprefix("split: ")

    def _length_problems(self) -> Iterator[Problem]:
        if not 1 <= self.seq_len < INT32_MAX:
            yield "seq_len", f"{self.seq_len} must be from 1 to {INT32_MAX - 1}"
        elif self.packing != "none" and self.seq_len > LONGEST_PACKED:
            rule = f"is too long to be packed; take at most {LONGEST_PACKED}"
            yield "seq_len", f"{self.seq_len} {rule}"

    def _share_problems(self) -> Iterator[Problem]:
        """What keeps shares from being those that are wished."""
        by = self.shares.by
        if by == "hand":
            return
        if any(source.weight is not None for source in self.tokens):
            yield "shares.by", f"{by} gives the weights; leave out those of the tokens"
        if self.phases:
            yield "shares.by", f"{by} gives the weights; leave out the phases"
        for place, source in enumerate(self.tokens):
            if by == "seeds" and source.kind is None:
                yield f"tokens.{place}.kind", f"must be one of {', '.join(get_args(Kind))}"

    def _order_problems(self) -> Iterator[Problem]:
        """What keeps samples from coming in the wished order."""
        if self.phases:
            yield from phase_problems(self.phases, len(self.tokens))
            if any(source.weight is not None for source in self.tokens):
                yield "phases", "give weights to the phases or to the sources, not to both"
        by_score = self.curriculum is not None and self.curriculum.by == "score"
        for place, source in enumerate(self.tokens):
            if by_score and source.scores is None:
                yield f"tokens.{place}.scores", "must be set for a curriculum by score"
            if not by_score and source.scores is not None:
                yield f"tokens.{place}.scores", "is not read without curriculum.by: score"
        if self.earlier is not None and self.curriculum is not None:
            yield "curriculum", "the orders of `earlier` go on as they are; leave one of both out"
        if self.earlier_samples < 0 or (self.earlier is None and self.earlier_samples):
            yield "earlier_samples", f"{self.earlier_samples} of no index; it goes with `earlier`"
        if self.earlier is None and self.only_new_sources:
            yield "only_new_sources", "is not read without `earlier`; leave it out"


def promise(config: Config, inputs: Mapping[str, Facts]) -> Facts:
    """Its sizes, and the largest vocabulary of its sources.

    How many samples there will be is known only where they are not rounded up to whole epochs.
    """
    rounded = len(config.tokens) == 1
    sizes = [facts.get("vocab_size") or 0 for facts in inputs.values()]
    return {
        "vocab_size": max(sizes, default=0) or None,
        "seq_len": config.seq_len,
        "train_samples": None if rounded else config.train_samples,
        "earlier_samples": config.earlier_samples,
    }


def foresee(config: Config, inputs: Mapping[str, Facts]) -> Iterator[Problem]:
    """Where the index that this one is to follow will be cut otherwise."""
    before = inputs.get("earlier", {}).get("seq_len")
    if before and before != config.seq_len:
        yield "seq_len", f"{config.seq_len} is not that of `earlier`, {before}; take the same"


def describe(config: Config, resources: Resources) -> list[tuple[str, str]]:
    """The share of each source in the train samples, and how often it is gone through.

    Both are known when the token files are there; shares by hand, or of one source a kind, before.
    """
    from megatron_jobs.data.blend import normalize

    sizes = [_size(source.path) for source in config.tokens]
    known = [size for size in sizes if size is not None]
    kinds = [source.kind for source in config.tokens]
    by_size = config.shares.by == "size" or len(set(kinds)) < len(kinds)
    if len(known) < len(sizes) and config.shares.by != "hand" and by_size:
        return [("shares", f"by {config.shares.by}; known when the tokens are there")]
    guessed = [size or 1 for size in sizes]
    weights = [weight for weight in _weights(config, guessed) if weight is not None]
    if not weights and len(known) < len(sizes):
        return [("shares", "all that each source holds, once")]
    shares = normalize(weights or guessed)
    train = parse_split(config.split)[0]
    lines = []
    for place, (share, size) in enumerate(zip(shares, sizes, strict=True)):
        text = f"{100 * share:.1f} %"
        if size is not None and config.train_samples is not None:
            epochs = share * config.train_samples * config.seq_len / (size * train)
            text += f", {epochs:.2f} epochs of {size * train:,.0f} tokens"
        lines.append((f"share of tokens.{place}", text))
    return lines


def _size(path: Path) -> int | None:
    """Tokens of a source; None while it is not there."""
    from megatron_jobs.data.token_file import TokenFile

    try:
        return max(1, TokenFile.open(_prefix(path)).tokens)
    except (UserError, DataError):
        return None


def run(config: Config, rank: Rank, folder: Path) -> dict[str, float]:
    """Build folder/index; the leader does all the work, on all cores it has."""
    from megatron_jobs.data.build_index import build_sample_index
    from megatron_jobs.data.index_plan import IndexPlan

    if not rank.leads:
        return {}
    sources = [_open(tokens) for tokens in config.tokens]
    weights = _weights(config, [source.facts.tokens for source in sources])
    sources = [replace(one, weight=weight) for one, weight in zip(sources, weights, strict=True)]
    plan = IndexPlan(
        split=config.split,
        seq_len=config.seq_len,
        seed=config.seed,
        packing=config.packing,
        curriculum=config.curriculum,
        phases=config.phases,
        earlier=config.earlier,
        earlier_samples=config.earlier_samples,
        only_new_sources=config.only_new_sources,
        samples={
            "train": config.train_samples,
            "valid": config.valid_samples,
            "test": config.test_samples,
        },
    )
    out = folder / "index"
    remove(out)
    with whole_folder(out) as part:
        samples = build_sample_index(part, sources, plan)
        _say_begins(part)
    return {
        "documents": sum(source.facts.documents for source in sources),
        "tokens": sum(source.facts.tokens for source in sources),
        **{f"{split}_samples": count for split, count in samples.items()},
        **_packing_numbers(out / "index.json"),
    }


def _weights(config: Config, sizes: Sequence[int]) -> list[float | None]:
    """Of each source, of `sizes` tokens; with phases their mean: of the other splits' blends."""
    from megatron_jobs.data.phases import mean_weights

    if config.phases:
        return list(mean_weights(config.phases))
    if config.shares.by == "size":
        return list(shares_by_size(sizes, config.shares.temperature))
    if config.shares.by == "seeds":
        kinds = [source.kind for source in config.tokens if source.kind is not None]
        return list(shares_by_kind(kinds, sizes))
    return [source.weight for source in config.tokens]


def _say_begins(index: Path) -> None:
    """Print how each source begins behind an earlier index, and which that one has beside them."""
    from megatron_jobs.data.earlier import Note
    from megatron_jobs.data.source_name import source_name

    earlier = read_json(index / "index.json")["earlier"] or {"sources": [], "left_out": []}
    for note in earlier["sources"]:
        print(Note(**note), flush=True)
    for prefix in earlier["left_out"]:
        name = source_name(index / prefix) if prefix else "a source of before"
        print(f"{name}: left out; its order is kept", flush=True)


def _packing_numbers(path: Path) -> dict[str, float]:
    """How well the train documents were packed, all sources together; nothing without packing."""
    records = read_json(path)["splits"].get("train", {"sources": []})["sources"]
    found = [record["packing"] for record in records if "packing" in record]
    if not found:
        return {}
    bins = sum(facts["bins"] for facts in found)
    return {
        "padding": sum(facts["padding"] * facts["bins"] for facts in found) / bins,
        "documents_cut": sum(facts["cut"] for facts in found),
        "documents_left_out": sum(facts["left_out"] for facts in found),
    }


def _open(tokens: Tokens) -> "Source":
    """The token file of a folder or a .bin, looked through as a whole."""
    from megatron_jobs.data.index_plan import Source
    from megatron_jobs.data.token_facts import TokenFacts, facts_path
    from megatron_jobs.data.token_file import TokenFile

    prefix = _prefix(tokens.path)
    file = TokenFile.open(prefix)
    file.check()
    if file.tokens == 0:
        raise UserError(f"tokens: {prefix} holds no token; leave it out")
    if not facts_path(prefix).exists():
        facts = TokenFacts.of_bare_file(prefix, documents=len(file), tokens=file.tokens)
        return Source(prefix, file, facts, scores=tokens.scores)
    facts = TokenFacts.read(prefix)
    if facts.tokens != file.tokens:
        found = f"{facts_path(prefix)} tells of {facts.tokens} tokens"
        raise DataError(f"{found}, {prefix}.idx of {file.tokens}; they do not belong together")
    return Source(prefix, file, facts, scores=tokens.scores)


def _prefix(path: Path) -> Path:
    if not path.is_dir() and path.suffix != ".bin":
        raise UserError(f"{path}: must be a folder of the tokenize stage, or a .bin")
    return path / "tokens" if path.is_dir() else path.with_suffix("")
