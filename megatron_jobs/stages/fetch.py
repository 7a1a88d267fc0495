"""Files from elsewhere, fetched once, known by their hash: addresses and packages.

A package is fetched by the site's own tool (pip, npm, apt-get), so mirrors and proxies that are
configured there hold. Needs a node with network; on clusters whose nodes have none run it on the
login node first (`mj run` with the same run folder), the receipt then holds.
"""

import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from fnmatch import fnmatchcase
from lzma import LZMAError
from pathlib import Path
from typing import Any

from megatron_jobs.config.resources import Resources
from megatron_jobs.config.settings import Problem, Settings
from megatron_jobs.errors import UserError
from megatron_jobs.runtime.files import file_hash, read_json, remove, whole_folder, write_json
from megatron_jobs.runtime.progress import Progress
from megatron_jobs.runtime.rank import Rank

OUTPUTS = ("files", "fetched.json")
RESOURCES = Resources()
TOOLS = {"pip": "pip", "sdist": "pip", "npm": "npm", "deb": "apt-get"}
"""Kind of a package -> what fetches it."""
FACTS = "fetched.json"
"""By name: address, take, file and sha256 of what was fetched."""
ARCHIVES = (".zip", ".whl", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".deb")
DAMAGED = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, LZMAError, OSError)
APT = ("apt-get", "-q=2", "-o", "APT::Sandbox::User=root")
AT_ONCE = 4
"""Items that are fetched at the same time."""
CHUNK = 1 << 20
WORDS = 2000
"""Letters of a tool's complaint that are shown."""


class Item(Settings):
    """One thing to fetch."""

    name: str
    """Of its folder in `files`; a plain word."""
    address: str
    """`pip:NAME==VERSION` (a wheel), `sdist:NAME==VERSION`, `npm:NAME@VERSION`, `deb:NAME` or
    `deb:NAME=VERSION`, or any address that fsspec knows (https://, s3://, a path)."""
    sha256: str = ""
    """Of the file that is fetched; empty takes what comes and writes its hash down."""
    take: tuple[str, ...] = ()
    """Patterns of members of the archive, such as `*/texts/*.txt`; empty unpacks nothing of an
    address, and all of a package."""


class Config(Settings):
    """What is fetched."""

    items: list[Item]

    def problems(self) -> Iterator[Problem]:
        """Values that cannot work."""
        names = [item.name for item in self.items]
        if not names:
            yield "items", "found nothing, must name at least one thing to fetch"
        for name in {name for name in names if names.count(name) > 1}:
            yield "items", f"{name!r} is the name of several"
        for place, item in enumerate(self.items):
            if not item.name.replace("-", "").replace("_", "").isalnum():
                yield f"items.{place}.name", f"{item.name!r} must be letters, digits, - and _"
            kind, _, rest = item.address.partition(":")
            if not rest:
                yield (
                    f"items.{place}.address",
                    f"{item.address!r} has no pip:, sdist:, npm:, deb: or ://",
                )
            if item.sha256 and len(item.sha256) != 64:
                yield f"items.{place}.sha256", f"{item.sha256!r} must have 64 hex digits"
            if kind in TOOLS and rest.startswith("-"):
                yield f"items.{place}.address", f"{rest!r} must be the name of a package"


def run(config: Config, rank: Rank, folder: Path) -> dict[str, float]:
    """Fetch what is not there yet into folder/files/NAME; the leader does all the work.

    Raises: UserError that names every item that cannot be had; the others are there then.
    """
    if not rank.leads:
        return {}
    out = folder / "files"
    out.mkdir(parents=True, exist_ok=True)
    facts = read_json(folder / FACTS) if (folder / FACTS).exists() else {}
    missing = [item for item in config.items if not _is_there(item, out, facts)]
    _fetch_all(missing, len(config.items), folder, facts)
    for gone in {path.name for path in out.iterdir()} - {item.name for item in config.items}:
        remove(out / gone)
    files = [path for path in out.rglob("*") if path.is_file()]
    taken = sum(path.stat().st_size for path in files)
    return {"items": len(config.items), "files": len(files), "bytes": taken}


def _is_there(item: Item, out: Path, facts: dict[str, Any]) -> bool:
    """Whether it was fetched as it is asked for now, and of the hash that is asked for."""
    known = facts.get(item.name, {})
    fits = not item.sha256 or item.sha256.lower() == known.get("sha256")
    return fits and (out / item.name).exists() and _asked(item).items() <= known.items()


def _asked(item: Item) -> dict[str, Any]:
    return item.model_dump(mode="json", include={"address", "take"})


def _fetch_all(items: list[Item], of: int, folder: Path, facts: dict[str, Any]) -> None:
    """Fetch a few at a time; write down what each of them was."""
    progress = Progress(folder, total=of, unit="items")
    progress.update(of - len(items))
    faults = []
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(AT_ONCE) as pool:
        lists = _Lists(Path(place) / "lists")
        found = {pool.submit(_fetch_whole, item, folder / "files", lists): item for item in items}
        for number, done in enumerate(as_completed(found), of - len(items) + 1):
            item = found[done]
            try:
                facts[item.name] = _asked(item) | done.result()
            except UserError as error:
                faults.append((items.index(item), str(error)))
            write_json(folder / FACTS, facts)
            progress.update(number)
    if faults:
        raise UserError("\n".join(fault for _, fault in sorted(faults)))


def _fetch_whole(item: Item, out: Path, lists: "_Lists") -> dict[str, str]:
    remove(out / item.name)
    with whole_folder(out / item.name) as part:
        return _fetch(item, part, lists)


def _fetch(item: Item, folder: Path, lists: "_Lists") -> dict[str, str]:
    """Fill a folder; the name and hash of the file that was fetched."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{item.name}.partial.") as place:
        file = _download(item, Path(place), lists)
        found = file_hash(file)
        if item.sha256 and found != item.sha256.lower():
            cure = "see whether it was changed on purpose, then give the new hash"
            raise UserError(f"{item.name}: {item.address} has the SHA-256 {found}; {cure}")
        is_package = item.address.partition(":")[0] in TOOLS
        if item.take or (is_package and file.name.endswith(ARCHIVES)):
            _unpack(item, file, folder)
        else:
            shutil.copy(file, folder / file.name)
        if not any(folder.iterdir()):
            raise UserError(f"{item.name}: nothing in {file.name} is like {', '.join(item.take)}")
        return {"file": file.name, "sha256": found}


def _download(item: Item, place: Path, lists: "_Lists") -> Path:
    """The file, in an empty folder."""
    kind, _, name = item.address.partition(":")
    if kind not in TOOLS:
        return _copy_address(item, place)
    if kind == "deb":
        return _download_deb(item, name, place, lists)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command = {
        "pip": [*pip, "--only-binary", ":all:", name],
        "sdist": [*pip, "--no-binary", ":all:", name],
        "npm": ["npm", "pack", "--loglevel=error", name],  # --silent says nothing of errors either
    }[kind]
    return _call(item, command, place)


def _download_deb(item: Item, name: str, place: Path, lists: "_Lists") -> Path:
    """With this machine's lists of packages, or, where they are missing, with lists of our own."""
    try:
        return _call(item, [*APT, "download", name], place)
    except UserError as error:
        if "Unable to locate package" not in str(error):
            raise
    options, complaint = lists.fetched()
    try:
        return _call(item, [*APT, *options, "download", name], place)
    except UserError as error:
        raise UserError(f"{error}{complaint}") from None


class _Lists:
    """Lists of Debian's packages that are not this machine's own: fetched once, when asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.lock, self.complaint = folder, threading.Lock(), ""

    def fetched(self) -> tuple[list[str], str]:
        """apt-get's options to use them, and what it complained of, on a line of its own."""
        options = ["-o", f"Dir::State::lists={self.folder}", "-o", f"Dir::Cache={self.folder}"]
        with self.lock:
            if not self.folder.exists():
                (self.folder / "partial").mkdir(parents=True)
                command = [*APT, *options, "update"]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                words = done.stderr.strip()[-WORDS:]
                self.complaint = f"\n`apt-get update` said:\n{words}" if words else ""
        return options, self.complaint


def _call(item: Item, command: list[str], place: Path) -> Path:
    """What a command leaves in an empty folder."""
    try:
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise UserError(_lacks(item, command[0])) from None
    files = [path for path in place.iterdir() if path.is_file()]
    words = (done.stderr.strip() or done.stdout.strip())[-WORDS:]
    if "No module named pip" in words:
        raise UserError(_lacks(item, f"pip in {command[0]}"))
    if done.returncode != 0:
        raise UserError(f"{item.name}: `{' '.join(command)}` failed; is there network?\n{words}")
    if len(files) != 1:
        found = ", ".join(sorted(file.name for file in files)) or "no file"
        raise UserError(f"{item.name}: `{' '.join(command)}` left {found}, must leave one file")
    return files[0]


def _lacks(item: Item, tool: str) -> str:
    cure = "install it, or fetch elsewhere and give a path"
    return f"{item.name}: {item.address} needs {tool}, which is not on this machine; {cure}"


def _copy_address(item: Item, place: Path) -> Path:
    import fsspec

    file = place / (item.address.rstrip("/").rpartition("/")[2].partition("?")[0] or item.name)
    try:
        with fsspec.open(item.address, "rb") as source, file.open("wb") as copy:
            shutil.copyfileobj(source, copy, CHUNK)
    except ImportError as error:
        raise UserError(f"{item.name}: {item.address}: {error}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{item.name}: {item.address} cannot be read: {error}") from error
    return file


def _unpack(item: Item, file: Path, folder: Path) -> None:
    """The members that are like a pattern; of a Debian package those of its data."""
    try:
        if file.name.endswith(".deb"):
            _untar(_data_of_deb(file), item.take, folder)
        elif file.name.endswith((".zip", ".whl")):
            _unzip(file, item.take, folder)
        else:
            _untar(file, item.take, folder)
    except DAMAGED as error:
        raise UserError(f"{item.name}: {file.name} cannot be unpacked: {error}") from error


def _data_of_deb(file: Path) -> Path:
    """The archive of a Debian package's files."""
    data = file.with_name("data.tar")
    with data.open("wb") as out:
        command = ["dpkg-deb", "--fsys-tarfile", str(file)]
        done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise tarfile.ReadError(done.stderr.strip()[-WORDS:])
    return data


def _untar(file: Path, take: tuple[str, ...], folder: Path) -> None:
    with tarfile.open(file) as archive:
        for member in archive:
            if member.isfile() and _is_taken(member.name, take):
                archive.extract(member, folder, filter="data")  # no way out of the folder


def _unzip(file: Path, take: tuple[str, ...], folder: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            if name.endswith("/") or not _is_taken(name, take):
                continue
            if ".." in Path(name).parts:  # zipfile drops these, and may so replace another member
                raise zipfile.BadZipFile(f"{name!r} leads outside the folder")
            archive.extract(name, folder)


def _is_taken(name: str, take: tuple[str, ...]) -> bool:
    """Whether a member's path is like one of the patterns; `*` also stands for slashes."""
    path = name.removeprefix("./")
    return not take or any(fnmatchcase(path, pattern) for pattern in take)
