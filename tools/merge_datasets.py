#!/usr/bin/env python3
"""Join all token files of a folder, by name, with the flags of Megatron-LM's merge_datasets.py.

tools/merge_datasets.py --input folder --output-prefix merged
"""

import argparse
import sys
from pathlib import Path

from megatron_jobs.data.token_facts import join_facts
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
        prefixes = token_files(asked.input)
        merge_token_files(prefixes, asked.output_prefix)
        join_facts(prefixes, asked.output_prefix)
    except (UserError, DataError) as error:
        print(f"merge_datasets: {error}", file=sys.stderr)
        return EXIT_USER
    return EXIT_DONE


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
