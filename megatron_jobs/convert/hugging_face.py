"""Hugging Face folders but for their tensors: config.json, tokenizer files, the table that fits."""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.settings import all_problems
from megatron_jobs.convert.families import FAMILIES
from megatron_jobs.convert.family import Family, settings_of
from megatron_jobs.convert.json_file import read_limited_json
from megatron_jobs.convert.safetensors import check_inside
from megatron_jobs.errors import DataError, UserError

CONFIG = "config.json"
CONFIG_BYTES = 4 << 20
"""No config.json of a model is larger."""
TOKENIZER_BYTES = 16 << 20
"""Of a tokenizer_config.json, which may list added tokens."""
HEAD_BYTES = 8 << 20
"""Of a tokenizer.json, in which the added tokens are looked for."""
ADDED = re.compile(r'"added_tokens"\s*:\s*\[')
TOKENIZER = "tokenizer.json"
PIECES = "tokenizer.model"
"""A SentencePiece model, where a tokenizer is not, or not only, a tokenizer.json."""
TOKENIZER_FILES = (
    TOKENIZER,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "merges.txt",
    "bpe.codes",
    PIECES,
    "tiktoken.model",
    "tekken.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "spm.model",
    "sentencepiece.model",
    "sentencepiece.bpe.model",
)
"""What goes along with a model."""
FURTHER_FILES = ("tokenizer.model.v*", "additional_chat_templates/*.jinja")
"""Patterns of names of more."""
DIVISOR = 128
"""Rows of an embedding: a multiple of it can be cut over any usual number of tensor ranks."""
SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")
OF_THE_FILE = ("torch_dtype", "dtype", "transformers_version", "quantization_config", "auto_map")
"""Keys of config.json that speak of the file, not of the model."""


@dataclass(frozen=True)
class Described:
    """What a Hugging Face folder says of itself."""

    family: Family
    model: ModelConfig
    config: dict[str, Any]
    """config.json as it is, or of the language part as it would be."""
    part_of: str = ""
    """The model_type of a model of more than text, of which that part is meant."""


def read_described(
    folder: Path, pad_vocab_to: int = DIVISOR, names: Collection[str] = ()
) -> Described:
    """What config.json of a folder says.

    Args:
        pad_vocab_to: the embedding gets a multiple of this many rows.
        names: of its tensors, which settle what config.json leaves open.

    Raises: DataError when it is missing, lacks something or cannot be true; UserError when it is of
        an architecture, or a variant of one, that has no table.
    """
    file = folder / CONFIG
    if not file.is_file():
        raise DataError(f"{folder}: no {CONFIG}; not a Hugging Face model")
    config = read_limited_json(file, CONFIG_BYTES)
    if not isinstance(config, dict):
        raise DataError(f"{file}: not the settings of a model: {type(config).__name__}")
    return described(config, str(file), pad_vocab_to, names)


def described(
    config: dict[str, Any],
    where: str,
    pad_vocab_to: int = DIVISOR,
    names: Collection[str] = (),
) -> Described:
    """What the mapping of a config.json says; `where` names it in errors."""
    family = family_of(config, where)
    try:
        values = _settings(family, config, names, where)
        model = ModelConfig(**values, pad_vocab_to=pad_vocab_to)
    except KeyError as error:
        rule = f"missing; a {family.name} model has it"
        raise DataError(f"{where}: {error.args[0]}: {rule}") from error
    except ValidationError as error:
        (first, *_) = error.errors()
        name = ".".join(map(str, first["loc"]))
        raise DataError(f"{where}: {name}: found {first['input']!r}: {first['msg']}") from error
    except (ValueError, TypeError, AttributeError, ArithmeticError, IndexError) as error:
        raise DataError(f"{where}: not the settings of a model: {error}") from error
    for setting, sentence in all_problems(model):
        raise DataError(f"{where}: {setting}: {sentence}")
    if family.language_part is None or config["model_type"] != family.larger:
        return Described(family, model, config)
    return Described(family, model, dict(family.language_part(config)), part_of=family.larger)


def _settings(
    family: Family, config: Mapping[str, Any], names: Collection[str], where: str
) -> dict[str, Any]:
    """As `settings_of`, with the place in front of what it refuses."""
    try:
        return settings_of(family, config, names)
    except UserError as error:
        raise UserError(f"{where}: {str(error).removeprefix('config.json: ')}") from error


def family_of(config: Mapping[str, Any], where: str) -> Family:
    """The table of a config.json; UserError when there is none."""
    kind = config.get("model_type")
    for family in FAMILIES.values():
        if kind is not None and kind in (family.model_type, family.larger):
            return family
    known = ", ".join(sorted(FAMILIES))
    hint = _language_hint(config)
    raise UserError(f"{where}: model_type {kind!r}: no table; there are {known}{hint}")


def _language_hint(config: Mapping[str, Any]) -> str:
    """What would work for a model of more than text."""
    text = config.get("text_config")
    if not isinstance(text, Mapping):
        return ""
    kind = text.get("model_type")
    known = [family for family in FAMILIES.values() if family.model_type == kind]
    if not known:
        return f"; its text_config is {kind!r}, which has none either"
    return f"; its language part would work, saved by itself as a {known[0].architecture}"


def fitting_family(model: ModelConfig, wanted: str | None) -> Family:
    """The table for a model of ours: the one of that name, or the first that fits.

    Raises: UserError saying why none does.
    """
    if wanted is not None and wanted not in FAMILIES:
        raise UserError(f"family: found {wanted!r}, there are {', '.join(sorted(FAMILIES))}")
    names = [wanted] if wanted is not None else list(FAMILIES)
    faults = {name: FAMILIES[name].misfit(model) for name in names}
    for name, fault in faults.items():
        if not fault:
            return FAMILIES[name]
    told = "; ".join(f"{name}: not with {fault}" for name, fault in faults.items())
    raise UserError(f"model: no architecture of Hugging Face's fits: {told}")


def written_config(
    model: ModelConfig,
    family: Family,
    *,
    dtype: str,
    tokenizer: Path | None,
    before: Mapping[str, Any] | None,
    other_tokenizer: bool = False,
) -> dict[str, Any]:
    """config.json of a model.

    Args:
        dtype: of the weights: float32, bfloat16, float16.
        tokenizer: folder whose special tokens it names.
        before: the config.json that the model came with, whose other values are kept.
        other_tokenizer: whether the tokenizer is not the one that it came with, so that the ids
            in `before` are of no use.
    """
    kept = {key: value for key, value in (before or {}).items() if key not in OF_THE_FILE}
    if kept.get("model_type") != family.model_type:
        kept = {}
    ids: dict[str, int | None] = {} if kept else dict.fromkeys(SPECIAL)
    if tokenizer is not None:
        told = special_ids(tokenizer).items()
        ids |= {k: v for k, v in told if v is not None and (other_tokenizer or k not in kept)}
    own = {"architectures": [family.architecture], "model_type": family.model_type}
    return own | kept | family.config(model) | ids | {"dtype": dtype, "torch_dtype": dtype}


def special_ids(tokenizer: Path) -> dict[str, int | None]:
    """bos_token_id, eos_token_id and pad_token_id as a tokenizer's files name them."""
    ids: dict[str, int | None] = dict.fromkeys(SPECIAL)
    file = tokenizer / "tokenizer_config.json"
    if not file.is_file() or not (tokenizer / TOKENIZER).is_file():
        return ids
    settings = read_limited_json(file, TOKENIZER_BYTES)
    numbers = _added_tokens(tokenizer / TOKENIZER)
    for name in ids:
        token = settings.get(name.removesuffix("_id"))
        text = token.get("content") if isinstance(token, dict) else token
        ids[name] = numbers.get(str(text))
    return ids


def _added_tokens(file: Path) -> dict[str, int]:
    """Special tokens -> ids. Their list stands before the vocabulary, which is not taken in: as
    Python's objects it would take more memory than the whole conversion."""
    with file.open("rb") as opened:
        head = opened.read(HEAD_BYTES).decode("utf-8", errors="ignore")
    found = ADDED.search(head)
    if found is None:
        return {}
    try:
        tokens, _ = json.JSONDecoder().raw_decode(head, found.end() - 1)
        return {token["content"]: int(token["id"]) for token in tokens}
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError(f"{file}: added_tokens: not a list of tokens: {error}") from error


def tokenizer_folder(path: Path) -> Path:
    """The folder of a tokenizer, named by itself or by its tokenizer.json; UserError if it is none.

    A Hugging Face folder holds more of a tokenizer than that one file. Raises as `tokenizer_files`.
    """
    folder = path.parent if path.name == TOKENIZER else path
    if not (folder / TOKENIZER).is_file():
        raise UserError(f"tokenizer: {folder}: no {TOKENIZER} in it; name the folder that holds it")
    tokenizer_files(folder)
    return folder


def tokenizer_files(folder: Path) -> list[Path]:
    """What of a folder belongs to a tokenizer, chat templates and generation settings included.

    Raises: DataError for a link that leads out of the folder, or nowhere.
    """
    found = [folder / name for name in TOKENIZER_FILES]
    found += [path for pattern in FURTHER_FILES for path in sorted(folder.glob(pattern))]
    return [check_inside(path, folder, folder) for path in found if path.is_file() or _leads(path)]


def _leads(path: Path) -> bool:
    """Whether it is a link to something else than a folder."""
    return path.is_symlink() and not path.is_dir()
