#!/usr/bin/env python3
"""JSONL to PREFIX_KEY_document.bin and .idx, with the flags of Megatron-LM's preprocess_data.py.

    tools/preprocess_data.py --input corpus.jsonl --output-prefix corpus --append-eod --workers 8 \
        --tokenizer-type HuggingFaceTokenizer --tokenizer-model path/to/tokenizer

It is the `tokenize` stage run once a key: a run that was killed goes on where it stopped, and lines
that are no documents are put aside in PREFIX_KEY_document.rejected.jsonl. Sentences are split in
the same run; nothing is written beside the input.
"""

import argparse
import glob
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from megatron_jobs.config.settings import all_problems
from megatron_jobs.errors import EXIT_DONE, EXIT_USER, ConfigError, DataError, UserError
from megatron_jobs.runtime.files import read_json, remove, write_json, write_text
from megatron_jobs.runtime.launch import fork_ranks
from megatron_jobs.stages import tokenize

TOKENIZER = "HuggingFaceTokenizer"
BYTE_PAIRS = "GPT2BPETokenizer"
EXIT_SIGNAL = 128
"""And the signal's number, as of a shell."""
END = "<|endoftext|>"
"""Of GPT-2's vocabulary."""
ONE_A_CORE = "take one worker a core, more cannot be faster"
MAKE_JSON = "the tokenizer stage makes a tokenizer.json of it (source: FILE), for " + TOKENIZER
REFUSED = {
    "--vocab-size": "the tokenizer says it",
    "--tokenizer-metadata": "--tokenizer-type says what reads the tokenizer",
    "--tokenizer-special-tokens": "have them in the tokenizer.json (the tokenizer stage: special)",
    "--tokenizer-hf-no-use-fast": "only a fast tokenizer, a tokenizer.json, is read",
    "--trust-remote-code": "no code of others is run; have the tokenizer saved as tokenizer.json",
    "--tiktoken-pattern": MAKE_JSON,
    "--tiktoken-num-special-tokens": MAKE_JSON,
    "--tokenizer-sentencepiece-legacy": MAKE_JSON,
    "--no-tokenizer-sentencepiece-ignore-extra-whitespaces": MAKE_JSON,
    "--disable-tokenizer-sentencepiece-ignore-extra-whitespaces": MAKE_JSON,
    "--null-tokenizer-eod-id": "there is no tokenizer of numbers that stand in a text",
    "--null-tokenizer-pad-id": "there is no tokenizer of numbers that stand in a text",
    "--find-optimal-num-workers": ONE_A_CORE,
    "--workers-to-check": ONE_A_CORE,
    "--max-documents": ONE_A_CORE,
}
"""Flags that Megatron-LM knows and this does not, and what to do instead."""
NO_EFFECT = (
    "--padded-vocab-size",
    "--no-pad-vocab-size",
    "--disable-pad-vocab-size",
    "--vocab-extra-ids",
    "--chat-template",
)
"""Flags that change no token there either."""


def main(words: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 something the user can mend, else that of the rank that failed."""
    asked = read_flags(words)
    try:
        for key in asked.json_keys:
            status = tokenize_key(asked, key)
            if status != EXIT_DONE:
                return status
    except (UserError, DataError) as error:
        print(f"preprocess_data: {error}", file=sys.stderr)
        return EXIT_USER
    return EXIT_DONE


def read_flags(words: list[str] | None) -> argparse.Namespace:
    """The flags, those of Megatron-LM that are not supported refused with a word."""
    parser = argparse.ArgumentParser("preprocess_data.py", description=str(__doc__).split("\n")[0])
    add = parser.add_argument
    add("--input", required=True, help="JSONL file, or a pattern such as 'shard_*.jsonl'")
    add("--json-keys", nargs="+", default=["text"], help="keys to extract, each to its own files")
    add("--split-sentences", action="store_true", help="make each sentence a sequence")
    add("--keep-newlines", action="store_true", help="keep white space between sentences")
    add("--lang", default="english", help="language of $NLTK_DATA/tokenizers/punkt_tab, if there")
    add("--append-eod", action="store_true", help="end each document with the end token")
    add("--tokenizer-type", default=TOKENIZER, help=f"{TOKENIZER} or {BYTE_PAIRS}")
    add("--tokenizer-model", type=Path, help=f"folder with a tokenizer.json, for {TOKENIZER}")
    add("--vocab-file", type=Path, help=f"vocab.json of {BYTE_PAIRS}")
    add("--merge-file", type=Path, help=f"merges.txt of {BYTE_PAIRS}")
    add("--use-gigatoken", action="store_true", help="always so where it gives the same ids")
    add("--encoder", default="auto", choices=["auto", "gigatoken", "tokenizers"],
        help="what encodes")  # fmt: skip
    add("--tokenizer-hf-no-include-special-tokens", action="store_true",
        help="leave out what the tokenizer's template adds to each text")  # fmt: skip
    add("--output-prefix", required=True, help="path of the outputs without key and suffix")
    add("--workers", type=int, required=True, help="processes")
    add("--partitions", type=int, default=1, help="parts that are made apart, at least")
    add("--keep-sequential-samples", action="store_true", help="always so")
    add("--log-interval", type=int, default=1000, help="accepted; progress goes to a file")
    add("--names", action="store_true", help="write PREFIX.names, what each document is called")
    add("--max-rejected-share", type=float, default=0.05, help="lines that may be put aside")
    for flag in NO_EFFECT:
        add(flag, nargs="*", help=argparse.SUPPRESS)
    for flag, instead in REFUSED.items():
        add(flag, nargs="*", action=Refuse, help=argparse.SUPPRESS, metavar=instead)
    asked = parser.parse_args(words)
    for problem in flag_problems(asked):
        parser.error(problem)
    return asked


def flag_problems(asked: argparse.Namespace) -> Iterator[str]:
    """What is wrong with flags together."""
    needs = {TOKENIZER: ["tokenizer_model"], BYTE_PAIRS: ["vocab_file", "merge_file"]}
    if asked.tokenizer_type not in needs:
        found = f"found {asked.tokenizer_type}, only {' and '.join(needs)} are supported"
        yield f"--tokenizer-type: {found}; {MAKE_JSON}"
    for name in needs.get(asked.tokenizer_type, ()):
        if getattr(asked, name) is None:
            yield f"--{name.replace('_', '-')}: missing; {asked.tokenizer_type} needs it"
    if asked.workers < 1:
        yield f"--workers: found {asked.workers}, must be at least 1"
    if asked.partitions < 1:
        yield f"--partitions: found {asked.partitions}, must be at least 1"


class Refuse(argparse.Action):
    """A flag that is known and not supported."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        flag = self.option_strings[0]
        parser.error(f"{flag}: not supported here; {self.metavar}")


def tokenize_key(asked: argparse.Namespace, key: str) -> int:
    """Run the tokenize stage for one key in `asked.workers` processes; their exit status."""
    level = "sentence" if asked.split_sentences else "document"
    prefix = Path(f"{asked.output_prefix}_{key}_{level}").absolute()
    work = prefix.with_name(prefix.name + ".work")
    config = make_config(asked, key, work)
    begin(work, config)
    if not (work / "tokens").exists():
        tokenize.preload(config)
        outcome = fork_ranks(
            lambda rank: tokenize.run(config, rank, work),
            asked.workers,
            error_file=lambda rank: work / f"error.{rank}",
        )
        if outcome.signal:
            cause = f"worker {outcome.guilty} was ended by {outcome.signal}"
            print(f"preprocess_data: {cause}; run again to go on", file=sys.stderr)
            return EXIT_SIGNAL - outcome.status
        if outcome.status != EXIT_DONE:
            return outcome.status
    publish(work, prefix)
    return EXIT_DONE


def find_tokenizer(asked: argparse.Namespace, work: Path) -> Path:
    """Where there is a tokenizer.json; one of vocab.json and merges.txt is written into `work`."""
    if asked.tokenizer_type == BYTE_PAIRS:
        return byte_pairs(asked.vocab_file, asked.merge_file, work / "tokenizer")
    if not asked.tokenizer_model.exists():
        hint = "save a tokenizer of the hub there first (AutoTokenizer's save_pretrained)"
        raise UserError(f"--tokenizer-model: {asked.tokenizer_model}: no such folder; {hint}")
    return Path(asked.tokenizer_model)


def byte_pairs(vocab: Path, merges: Path, folder: Path) -> Path:
    """GPT-2's tokenizer out of its two files, in the form of a tokenizer.json."""
    from tokenizers import ByteLevelBPETokenizer

    for flag, file in {"--vocab-file": vocab, "--merge-file": merges}.items():
        if not file.is_file():
            raise UserError(f"{flag}: {file}: no such file")
    try:
        tokenizer = ByteLevelBPETokenizer(str(vocab), str(merges))
    except Exception as error:  # the library raises no narrower one
        raise DataError(f"{vocab}, {merges}: no byte pairs as GPT-2's: {error}") from error
    tokenizer.add_special_tokens([END])
    file, text = folder / "tokenizer.json", tokenizer.to_str()
    if not file.is_file() or file.read_text(encoding="utf-8") != text:
        write_text(file, text)
    write_json(folder / "tokenizer_config.json", {"eos_token": END})
    return folder


def make_config(asked: argparse.Namespace, key: str, work: Path) -> tokenize.Config:
    """The stage's settings that the flags describe."""
    files = sorted(glob.glob(asked.input))
    if not files:
        raise UserError(f"--input: {asked.input}: no such file")
    config = tokenize.Config(
        input=[Path(file) for file in files],
        tokenizer=find_tokenizer(asked, work),
        encoder=asked.encoder,
        names=asked.names,
        key=key,
        append_eod=asked.append_eod,
        special_in_text=True,
        template=not asked.tokenizer_hf_no_include_special_tokens,
        split_sentences=asked.split_sentences,
        keep_newlines=asked.keep_newlines,
        punkt=find_punkt(asked.lang) if asked.split_sentences else None,
        parts=0 if asked.partitions == 1 else asked.partitions,
        max_rejected_share=asked.max_rejected_share,
    )
    problems = list(all_problems(config))
    if problems:
        raise ConfigError("flags", problems)
    return config


def find_punkt(language: str) -> Path | None:
    """nltk's data for a language; None where there are none."""
    folder = Path(os.environ.get("NLTK_DATA", "nltk_data"), "tokenizers", "punkt_tab", language)
    if folder.is_dir():
        return folder
    print(f"--lang: no {folder}: where sentences end is learned from the input", file=sys.stderr)
    return None


def begin(work: Path, config: tokenize.Config) -> None:
    """Go on with the tokens in `work` only if they were made with these settings and files."""
    file = config.tokenizer / "tokenizer.json" if config.tokenizer.is_dir() else config.tokenizer
    read = [path.stat() for path in (*config.input, file) if path.is_file()]
    made_of = {
        "settings": config.model_dump(mode="json"),
        "files": [[status.st_size, status.st_mtime_ns] for status in read],
    }
    noted = work / "made_of.json"
    if not noted.exists() or read_json(noted) != made_of:
        remove(work / "tokens")
        write_json(noted, made_of)


def publish(work: Path, prefix: Path) -> None:
    """Give the stage's outputs their customary names; what a killed run has moved is skipped.

    The .idx makes a token file: the old one goes first, the new one comes last.
    """
    if (work / "tokens/tokens.idx").exists():
        Path(f"{prefix}.idx").unlink(missing_ok=True)
    move_rejected(work / "rejected.jsonl", Path(f"{prefix}.rejected.jsonl"))
    if (work / "tokens/tokens.bin").exists():  # nothing has been moved yet
        Path(f"{prefix}.names").unlink(missing_ok=True)
    for suffix in (".bin", ".names", ".json", ".idx"):
        if (work / f"tokens/tokens{suffix}").exists():
            os.replace(work / f"tokens/tokens{suffix}", f"{prefix}{suffix}")
    remove(work)


def move_rejected(rejected: Path, out: Path) -> None:
    """Leave the lines that were put aside, or none of an earlier run."""
    if not rejected.exists():
        return
    if rejected.stat().st_size:
        os.replace(rejected, out)
        print(f"preprocess_data: lines put aside: {out}", file=sys.stderr)
    else:
        out.unlink(missing_ok=True)


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # to take a tokenizer apart takes 0.1 s
