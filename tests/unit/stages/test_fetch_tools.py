"""Packages by the tools that fetch them: pip itself, and stand-ins for npm and apt-get."""

import os
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from megatron_jobs.errors import UserError
from megatron_jobs.runtime.files import read_json
from megatron_jobs.stages.fetch import Item
from tests.unit.stages.test_fetch import an_archive, fetched

Tool = Callable[[str, str], Path]
NPM = Item(name="n", address="npm:some-package@1.0.0", take=("p/*.txt",))
DEB = Item(name="d", address="deb:some-package")


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tool:
    """Makes the only tool of a name; each of its calls leaves a line in calls.txt."""
    place = tmp_path / "bin"
    place.mkdir()
    monkeypatch.setenv("PATH", f"{place}:/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)

    def make(name: str, script: str) -> Path:
        path = place / name
        calls = f'echo "$0 $*" >> {tmp_path}/calls.txt'
        path.write_text(f"#!/bin/sh\n{calls}\n{script}\n")
        path.chmod(0o755)
        return path

    return make


def nothing_is_left(tmp_path: Path) -> bool:
    return list((tmp_path / "job/files").iterdir()) == []


def test_a_package_of_npm_is_fetched_once(tmp_path: Path, tool: Tool) -> None:
    file = an_archive(tmp_path / "some-package-1.0.0.tgz")
    tool("npm", f"cp {file} .; echo some-package-1.0.0.tgz")
    out = fetched(tmp_path, NPM)
    assert (out / "n/p/in/b.txt").read_text() == "two"
    tool("npm", "exit 1")
    fetched(tmp_path, NPM)
    same = NPM.model_copy(update={"sha256": read_json(out.parent / "fetched.json")["n"]["sha256"]})
    fetched(tmp_path, same)
    assert len((tmp_path / "calls.txt").read_text().splitlines()) == 1
    other = NPM.model_copy(update={"take": ("p/*.png",)})
    with pytest.raises(UserError, match=r"n: `npm pack .* failed"):
        fetched(tmp_path, other)
    assert nothing_is_left(tmp_path)


def test_tools_that_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: Tool
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    bare = tool("python", "echo '/usr/bin/python: No module named pip' >&2; exit 1")
    monkeypatch.setattr(sys, "executable", str(bare))
    bare.write_text(f"#!/bin/sh\n{bare.read_text().splitlines()[-1]}\n")
    with pytest.raises(UserError) as caught:
        fetched(tmp_path, NPM, DEB, Item(name="p", address="pip:some-package==1"))
    cure = "which is not on this machine; install it, or fetch elsewhere and give a path"
    assert str(caught.value).splitlines() == [
        f"n: npm:some-package@1.0.0 needs npm, {cure}",
        f"d: deb:some-package needs apt-get, {cure}",
        f"p: pip:some-package==1 needs pip in {bare}, {cure}",
    ]
    assert nothing_is_left(tmp_path)


def test_no_network(tmp_path: Path, tool: Tool) -> None:
    """What can be had is there; of the rest the tools' own words are told, and no file."""
    tool("npm", "echo half > half.tgz; echo 'npm error code ECONNREFUSED' >&2; exit 1")
    tool("apt-get", "echo 'E: Could not resolve deb.example' >&2; exit 100")
    (tmp_path / "page.html").write_text("<p>page")
    page = Item(name="page", address=f"file://{tmp_path}/page.html")
    with pytest.raises(UserError) as caught:
        fetched(tmp_path, NPM, page, DEB)
    assert str(caught.value).splitlines() == [
        "n: `npm pack --loglevel=error some-package@1.0.0` failed; is there network?",
        "npm error code ECONNREFUSED",
        "d: `apt-get -q=2 -o APT::Sandbox::User=root download some-package` failed; is there "
        "network?",
        "E: Could not resolve deb.example",
    ]
    assert [path.name for path in (tmp_path / "job/files").iterdir()] == ["page"]
    assert set(read_json(tmp_path / "job/fetched.json")) == {"page"}


def test_pip_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "some_package-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("some_package/a.txt", "one")
        wheel.writestr("some_package-1.0.dist-info/METADATA", "Name: some-package\nVersion: 1.0")
        wheel.writestr("some_package-1.0.dist-info/WHEEL", "Wheel-Version: 1.0")
        wheel.writestr("some_package-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    item = Item(name="p", address="pip:some-package==1.0", take=("*/a.txt",))
    assert (fetched(tmp_path, item) / "p/some_package/a.txt").read_text() == "one"
    with pytest.raises(UserError) as caught:
        fetched(tmp_path, Item(name="p", address="pip:some-package==2.0"))
    told = str(caught.value)
    assert told.startswith(f"p: `{sys.executable} -m pip download --quiet --no-deps ")
    assert "No matching distribution found for some-package==2.0" in told
    assert nothing_is_left(tmp_path)


APT = """case "$*" in
*" update") touch {here}/lists-came; {update};;
*) test -e {here}/lists-came && cp {here}/some-package_1_all.deb . ||
   {{ echo 'E: Unable to locate package some-package' >&2; exit 100; }};;
esac"""


def test_a_machine_without_lists_of_packages(tmp_path: Path, tool: Tool) -> None:
    """Lists of our own are fetched, once for all packages."""
    root = tmp_path / "root"
    (root / "DEBIAN").mkdir(parents=True)
    control = "Package: some-package\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b.c>\n"
    (root / "DEBIAN/control").write_text(f"{control}Description: files\n")
    (root / "usr").mkdir()
    (root / "usr/a.txt").write_text("one")
    if os.system(f"dpkg-deb -b {root} {tmp_path}/some-package_1_all.deb > /dev/null") != 0:
        pytest.skip("no dpkg-deb on this machine")
    tool("apt-get", APT.format(here=tmp_path, update="true"))
    again = DEB.model_copy(update={"name": "again"})
    (tmp_path / "job").mkdir()
    out = fetched(tmp_path, DEB, again)
    assert (out / "d/usr/a.txt").read_text() == (out / "again/usr/a.txt").read_text() == "one"
    calls = (tmp_path / "calls.txt").read_text().splitlines()
    assert len([call for call in calls if call.endswith(" update")]) == 1


def test_lists_that_cannot_be_had(tmp_path: Path, tool: Tool) -> None:
    complaint = "echo 'W: Failed to fetch http://deb.example' >&2; exit 0"
    tool("apt-get", APT.format(here=tmp_path, update=complaint).replace("touch", "true"))
    with pytest.raises(UserError) as caught:
        fetched(tmp_path, DEB)
    told = str(caught.value).splitlines()
    assert told[0].endswith("download some-package` failed; is there network?")
    assert told[1:] == [
        "E: Unable to locate package some-package",
        "`apt-get update` said:",
        "W: Failed to fetch http://deb.example",
    ]
    assert nothing_is_left(tmp_path)


def test_what_is_no_archive(tmp_path: Path, tool: Tool) -> None:
    tool("npm", "echo text > a.tgz")
    with pytest.raises(UserError, match=r"(?s)n: a.tgz cannot be unpacked: .*not a gzip file"):
        fetched(tmp_path, NPM)
    tool("npm", "true")
    with pytest.raises(UserError, match=r"n: `npm pack .*` left no file, must leave one file"):
        fetched(tmp_path, NPM)
    tool("apt-get", "echo text > a.deb")
    with pytest.raises(UserError, match=r"d: a.deb cannot be unpacked: .*not a Debian"):
        fetched(tmp_path, DEB)
    with tarfile.open(tmp_path / "links.tgz", "w:gz") as archive:
        link = tarfile.TarInfo("p/a.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    tool("npm", f"cp {tmp_path}/links.tgz .")
    with pytest.raises(UserError, match=r"n: nothing in links.tgz is like p/\*.txt"):
        fetched(tmp_path, NPM)
    assert nothing_is_left(tmp_path)
