"""Fetched once, whole or not at all, and only what was meant."""

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from megatron_jobs.config.settings import all_problems
from megatron_jobs.errors import UserError
from megatron_jobs.runtime.files import read_json
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.stages import fetch
from megatron_jobs.stages.fetch import Config, Item


def an_archive(path: Path) -> Path:
    """Two texts, a picture, and two members that lead out of the folder."""
    members = {"p/a.txt": b"one", "p/in/b.txt": b"two", "p/c.png": b"png"}
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def fetched(tmp_path: Path, *items: Item) -> Path:
    fetch.run(Config(items=list(items)), Rank(), tmp_path / "job")
    return tmp_path / "job/files"


def test_members_of_an_archive(tmp_path: Path) -> None:
    file = an_archive(tmp_path / "a.tar.gz")
    out = fetched(tmp_path, Item(name="texts", address=f"file://{file}", take=("p/*.txt",)))
    found = sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file())
    assert found == ["texts/p/a.txt", "texts/p/in/b.txt"]
    assert read_json(out.parent / "fetched.json") == {
        "texts": {
            "address": f"file://{file}",
            "take": ["p/*.txt"],
            "file": "a.tar.gz",
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        }
    }
    out = fetched(tmp_path, Item(name="texts", address=f"file://{file}", take=("*.png",)))
    assert [str(p.relative_to(out)) for p in out.rglob("*.*")] == ["texts/p/c.png"]


def test_what_is_there_is_not_fetched_again(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<p>page")
    item = Item(name="page", address=f"file://{tmp_path}/page.html")
    out = fetched(tmp_path, item)
    (tmp_path / "page.html").unlink()
    other = tmp_path / "other.txt"
    other.write_text("text")
    assert fetched(tmp_path, item, Item(name="other", address=str(f"file://{other}"))) == out
    assert (out / "page/page.html").read_text() == "<p>page"
    assert (out / "other/other.txt").read_text() == "text"
    fetched(tmp_path, item)
    assert [path.name for path in out.iterdir()] == ["page"]


def test_another_hash(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(UserError) as caught:
        fetched(tmp_path, Item(name="a", address=f"file://{tmp_path}/a.txt", sha256="0" * 64))
    found = hashlib.sha256(b"text").hexdigest()
    assert str(caught.value) == (
        f"a: file://{tmp_path}/a.txt has the SHA-256 {found}; see whether it was changed on "
        "purpose, then give the new hash"
    )
    assert list((tmp_path / "job/files").iterdir()) == []


def test_nothing_leads_out_of_the_folder(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("in.txt", "in")
        archive.writestr("a/../../in.txt", "out")
    with tarfile.open(tmp_path / "t.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("../../in.txt"))
    rooted = tarfile.TarInfo(f"{tmp_path}/rooted.txt")
    with tarfile.open(tmp_path / "r.tar", "w") as archive:
        archive.addfile(rooted)
    for name, match in (
        ("z.zip", r"z: z.zip cannot be unpacked: 'a/../../in.txt' leads outside the folder"),
        ("t.tar", r"t: t.tar cannot be unpacked: .* outside the destination"),
    ):
        with pytest.raises(UserError, match=match):
            fetched(tmp_path, Item(name=name[0], address=f"file://{tmp_path}/{name}", take=("*",)))
        assert list((tmp_path / "job/files").iterdir()) == []
    assert not any((tmp_path / name / "in.txt").exists() for name in (".", "..", "job"))
    out = fetched(tmp_path, Item(name="r", address=f"file://{tmp_path}/r.tar", take=("*",)))
    assert (out / "r" / rooted.name.lstrip("/")).is_file()
    assert not (tmp_path / "rooted.txt").exists()


def test_what_cannot_be_fetched(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a: file:///nowhere/a.txt cannot be read: .*No such file"):
        fetched(tmp_path, Item(name="a", address="file:///nowhere/a.txt"))
    file = an_archive(tmp_path / "a.tar.gz")
    with pytest.raises(UserError, match=r"a: nothing in a.tar.gz is like \*.pdf"):
        fetched(tmp_path, Item(name="a", address=f"file://{file}", take=("*.pdf",)))
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"a: a.tar.gz cannot be unpacked: Compressed file ended"):
        fetched(tmp_path, Item(name="a", address=f"file://{file}", take=("*",)))
    (tmp_path / "b.tar.xz").write_bytes(b"\xfd7zXZ\0 and nothing")
    with pytest.raises(UserError, match=r"b: b.tar.xz cannot be unpacked: "):
        fetched(tmp_path, Item(name="b", address=f"file://{tmp_path}/b.tar.xz", take=("*",)))
    assert list((tmp_path / "job/files").iterdir()) == []


def test_bad_settings() -> None:
    items = [Item(name="a", address="pip:--index"), Item(name="a", address="a.txt", sha256="12")]
    assert list(all_problems(Config(items=items))) == [
        ("items", "'a' is the name of several"),
        ("items.0.address", "'--index' must be the name of a package"),
        ("items.1.address", "'a.txt' has no pip:, sdist:, npm:, deb: or ://"),
        ("items.1.sha256", "'12' must have 64 hex digits"),
    ]
