"""A record is what can be written again; ids are kept as they are."""

import json
from typing import Any

import pytest

from megatron_jobs.text.documents import NotADocument
from megatron_jobs.text.record import from_line, from_object, to_line


def read(line: str) -> Any:
    return from_line(line.encode(), place="a:1")


@pytest.mark.parametrize(
    ("given", "wanted"),
    [("0", "0"), ("-7", "-7"), ('"x"', "x"), (str(10**29), str(10**29)), (str(2**63), str(2**63)),
     ("null", "a:1"), ('""', "a:1")],
)  # fmt: skip
def test_ids(given: str, wanted: str) -> None:
    record = read(f'{{"id": {given}, "text": "t"}}')
    assert (record.id, record.metadata) == (wanted, {})
    assert read(to_line(record).decode()) == record


@pytest.mark.parametrize("given", ["1.5e3", "[1]", '{"a": 1}', "false"])
def test_ids_that_are_none_stay_in_the_metadata(given: str) -> None:
    record = read(f'{{"id": {given}, "text": "t"}}')
    assert (record.id, record.metadata) == ("a:1", {"id": json.loads(given)})
    assert read(to_line(record).decode()) == record


@pytest.mark.parametrize("depth", [2, 200, 240, 250, 254, 300, 900, 1020])
@pytest.mark.parametrize("form", ['"m": {}', '"metadata": {{"m": {}}}', '"metadata": {}'])
def test_deep_json(depth: int, form: str) -> None:
    """It is written again as often as one likes, or no record at all."""
    deep = "[" * depth + "]" * depth
    line = f'{{"text": "t", {form.format(deep)}}}'
    if depth > 240:
        with pytest.raises(NotADocument, match="no plain JSON"):
            read(line)
        return
    first = read(line)
    again = read(to_line(first, verdict={"found": [first.metadata]}).decode())
    assert again.metadata["m" if "m" in again.metadata else "metadata"] == json.loads(deep)
    to_line(again)


def test_deep_json_in_a_string_as_tables_have_it() -> None:
    deep = {"text": "t", "metadata": '{"a":' + "[" * 300 + "]" * 300 + "}"}
    with pytest.raises(NotADocument, match="no plain JSON"):
        from_object(deep, place="a:1")


def test_numbers_that_json_cannot_hold() -> None:
    for value in (1 << 64, -(1 << 63) - 1, [10**30]):
        with pytest.raises(NotADocument, match="no plain JSON"):
            from_object({"text": "t", "n": value}, place="a:1")
    to_line(from_object({"text": "t", "n": (1 << 64) - 1, "f": float("nan")}, place="a:1"))
