#!/usr/bin/env python3
"""Join all token files of a folder, by name, with the flags of Megatron-LM's merge_datasets.py.

tools/merge_datasets.py --input folder --output-prefix merged
"""

import argparse
import sys
from pathlib import Path

from megatron_jobs.data.document_names import merge_document_names, names_path
from megatron_jobs.data.token_facts import facts_path, join_facts, shared_tokenizer
from megatron_jobs.data.token_file import merge_token_files
from megatron_jobs.errors import EXIT_DONE, EXIT_USER, DataError, UserError


def main(words: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 something the user can mend."""
    parser = argparse.ArgumentParser("merge_datasets.py", description=str(__doc__).split("\n")[0])
    parser.add_argument("--input", required=True, type=Path, help="folder of .bin and .idx files")
    parser.add_argument("--output-prefix", required=True, type=Path, help="path without suffix")
    parser.add_argument("--multimodal", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args(words)
    if asked.multimodal:
        parser.error("--multimodal: not supported here; token files of text only")
    try:
        merge(token_files(asked.input), asked.output_prefix)
    except (UserError, DataError) as error:
        print(f"merge_datasets: {error}", file=sys.stderr)
        return EXIT_USER
    return EXIT_DONE


def merge(prefixes: list[Path], out: Path) -> None:
    """Join token files and what is known of them into `out`."""
    if out.resolve() in [prefix.resolve() for prefix in prefixes]:
        cure = "remove it, or write to another folder"
        raise UserError(f"--output-prefix: {out}: is among the files to be joined; {cure}")
    bare = [prefix for prefix in prefixes if not facts_path(prefix).exists()]
    if not bare:
        shared_tokenizer(prefixes)
    for path in (facts_path(out), names_path(out)):
        path.unlink(missing_ok=True)  # never those of an earlier file
    merge_token_files(prefixes, out)
    if all(names_path(prefix).exists() for prefix in prefixes):
        merge_document_names(prefixes, out)
    if bare:
        print(f"merge_datasets: {facts_path(bare[0])} is missing: none written", file=sys.stderr)
    else:
        join_facts(prefixes, out)


def token_files(folder: Path) -> list[Path]:
    """The prefixes of all token files of a folder, by name; one without its half is an error."""
    if not folder.is_dir():
        raise UserError(f"--input: {folder}: no such folder")
    names = {path.name.removesuffix(path.suffix) for path in folder.glob("*.bin")}
    names |= {path.name.removesuffix(path.suffix) for path in folder.glob("*.idx")}
    if not names:
        raise UserError(f"--input: {folder}: holds no .bin and .idx")
    return [folder / name for name in sorted(names)]


if __name__ == "__main__":
    sys.exit(main())
