"""Parts are shared out so that each is made once, whichever rank comes first."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from megatron_jobs.data.part_claims import Claims, remove_claims
from megatron_jobs.runtime.rank import ALONE

PARTS = [Path(f"part-{i:06d}") for i in range(100)]


def claims_of(home: Path, world: int, attempt: str = "first") -> list[Claims]:
    ranks = [replace(ALONE, index=i, world=world, attempt=attempt) for i in range(world)]
    claims = [Claims(home, rank) for rank in ranks]
    for one in claims:
        one.begin()
    return claims


def test_each_part_is_taken_by_one_rank(tmp_path: Path) -> None:
    """Though all ask for every part at the same time."""
    ranks = claims_of(tmp_path, 8)
    with ThreadPoolExecutor(8) as threads:
        taken = list(threads.map(lambda rank: [p for p in PARTS if rank.take(p)], ranks))
    assert Counter(part for some in taken for part in some) == Counter(PARTS)


def test_all_parts_are_made_when_every_rank_has_ended(tmp_path: Path) -> None:
    first, second, third = claims_of(tmp_path, 3)
    first.take(PARTS[0])
    assert not second.is_made(PARTS[0])
    first.note_made(PARTS[0])
    assert second.is_made(PARTS[0])
    assert first.made() == second.made() == 1
    for rank in (third, first):
        rank.note_end()
        assert not first.all_ended()
    second.note_end()
    assert [rank.all_ended() for rank in (first, second, third)] == [True] * 3


def test_another_start_takes_all_parts_again(tmp_path: Path) -> None:
    (alone,) = claims_of(tmp_path, 1, "alone")
    assert alone.take(PARTS[0])
    assert not alone.take(PARTS[0])
    (again,) = claims_of(tmp_path, 1, "alone")
    assert again.take(PARTS[0])
    other, _ = claims_of(tmp_path, 2, "second")
    assert other.take(PARTS[0])
    (tmp_path / "part-000000").mkdir()
    remove_claims(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["part-000000"]
