#!/usr/bin/env python3
"""What a checkpoint holds, of any kind that convert_checkpoint.py reads; no weight is loaded.

tools/inspect_checkpoint.py PATH [--tensors] [--json] [--check]
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from megatron_jobs.convert.leaves import leaf_of
from megatron_jobs.convert.mapped import told_faults
from megatron_jobs.convert.source import Source, open_source
from megatron_jobs.errors import EXIT_DONE, EXIT_USER, DataError, UserError


def main(words: list[str] | None = None) -> int:
    """Exit status: 0 all is told, 2 the checkpoint lies or is none."""
    asked = flags().parse_args(words)
    try:
        with told_faults():
            source = open_source(asked.path)
            found = facts(source, tensors=asked.tensors)
            if asked.check:
                found["numbers_that_are_none"] = odd_numbers(source)
    except (UserError, DataError) as error:
        print(f"inspect_checkpoint: {error}", file=sys.stderr)
        return EXIT_USER
    except OSError as error:
        if error.filename is None:
            raise
        print(f"inspect_checkpoint: {error.filename}: {error.strerror}", file=sys.stderr)
        return EXIT_USER
    print(json.dumps(found, indent=2) if asked.json else "\n".join(lines(found)))
    return EXIT_DONE


def flags() -> argparse.ArgumentParser:
    """What can be asked."""
    parser = argparse.ArgumentParser(
        "inspect_checkpoint.py", description=str(__doc__).split("\n")[0]
    )
    parser.add_argument("path", type=Path)
    parser.add_argument("--tensors", action="store_true", help="each tensor, by its name of ours")
    parser.add_argument("--json", action="store_true")
    text = "read every number, and count those that are NaN or infinite"
    parser.add_argument("--check", action="store_true", help=text)
    return parser


def facts(source: Source, *, tensors: bool) -> dict[str, Any]:
    """Kind, sizes and settings; with `tensors`, shape, format and cut of each."""
    formats: dict[str, int] = {}
    for matrix in source.tensors.values():
        formats[matrix.dtype.name] = formats.get(matrix.dtype.name, 0) + matrix.bytes
    found: dict[str, Any] = {
        "path": str(source.path),
        "kind": source.kind,
        "family": source.family.name if source.family else None,
        "parameters": source.model.parameters(),
        "tensors": len(source.tensors),
        "bytes": formats,
        "tokenizer": str(source.tokenizer) if source.tokenizer else None,
        "model": source.model.model_dump(mode="json", exclude_defaults=True),
    }
    if tensors:
        found["each"] = {
            name: [list(matrix.shape), matrix.dtype.name, leaf_of(name).cut]
            for name, matrix in source.tensors.items()
        }
    return found


def odd_numbers(source: Source) -> dict[str, int]:
    """Tensors with NaN or infinity -> how many."""
    found = {}
    for name, matrix in source.tensors.items():
        count = 0
        for piece in matrix.read(0, matrix.rows):
            for start in range(0, len(piece), matrix.piece_rows()):
                part = piece[start : start + matrix.piece_rows()].astype("float32")
                count += int((~np.isfinite(part)).sum())
        if count:
            found[name] = count
    return found


def lines(found: dict[str, Any]) -> list[str]:
    """For people."""
    told = []
    for name, value in found.items():
        if isinstance(value, dict):
            told += [f"{name}:", *(f"  {key}: {_plain(one)}" for key, one in value.items())]
        else:
            told.append(f"{name}: {_plain(value)}")
    return told


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_plain, value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


if __name__ == "__main__":
    sys.exit(main())
