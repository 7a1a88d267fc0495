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
import zipfile
import zlib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

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
    """Fetch what is not there yet into folder/files/NAME; the leader does all the work."""
    if not rank.leads:
        return {}
    out = folder / "files"
    facts = read_json(folder / FACTS) if (folder / FACTS).exists() else {}
    progress = Progress(folder, total=len(config.items), unit="items")
    for number, item in enumerate(config.items):
        progress.update(number)
        asked = item.model_dump(mode="json", include={"address", "take"})
        known = facts.get(item.name, {})
        if (out / item.name).exists() and asked.items() <= known.items() and _fits(item, known):
            continue
        remove(out / item.name)
        with whole_folder(out / item.name) as part:
            found = _fetch(item, part)
        write_json(folder / FACTS, facts := facts | {item.name: asked | found})
    progress.update(len(config.items))
    for gone in {path.name for path in out.iterdir()} - {item.name for item in config.items}:
        remove(out / gone)
    files = [path for path in out.rglob("*") if path.is_file()]
    taken = sum(path.stat().st_size for path in files)
    return {"items": len(config.items), "files": len(files), "bytes": taken}


def _fits(item: Item, known: dict[str, str]) -> bool:
    """Whether what is there has the hash that is asked for."""
    return not item.sha256 or item.sha256.lower() == known["sha256"]


def _fetch(item: Item, folder: Path) -> dict[str, str]:
    """Fill a folder; the name and hash of the file that was fetched."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{item.name}.partial.") as place:
        file = _download(item, Path(place))
        found = file_hash(file)
        if item.sha256 and found != item.sha256.lower():
            cure = "see whether it was changed on purpose, then give the new hash"
            raise UserError(f"{item.name}: {item.address} has the SHA-256 {found}; {cure}")
        is_package = item.address.partition(":")[0] in TOOLS
        if item.take or (is_package and file.name.endswith(ARCHIVES)):
            _unpack(file, item.take, folder)
        else:
            shutil.copy(file, folder / file.name)
        if not any(folder.iterdir()):
            raise UserError(f"{item.name}: nothing in {file.name} is like {', '.join(item.take)}")
        return {"file": file.name, "sha256": found}


def _download(item: Item, place: Path) -> Path:
    """The file, in an empty folder."""
    kind, _, name = item.address.partition(":")
    if kind not in TOOLS:
        return _copy_address(item, place)
    if kind == "deb":
        return _download_deb(item, name, place)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command = {
        "pip": [*pip, "--only-binary", ":all:", name],
        "sdist": [*pip, "--no-binary", ":all:", name],
        "npm": ["npm", "pack", "--silent", name],
    }[kind]
    return _call(item, command, place)


def _download_deb(item: Item, name: str, place: Path) -> Path:
    """With this machine's lists of packages, or, where they are missing, with lists of our own."""
    apt = ["apt-get", "-q=2", "-o", "APT::Sandbox::User=root"]
    try:
        return _call(item, [*apt, "download", name], place)
    except UserError as error:
        if "Unable to locate package" not in str(error):
            raise
    with tempfile.TemporaryDirectory() as lists:
        (Path(lists) / "partial").mkdir()
        own = [*apt, "-o", f"Dir::State::lists={lists}", "-o", f"Dir::Cache={lists}"]
        subprocess.run([*own, "update"], capture_output=True, check=False)  # download tells why not
        return _call(item, [*own, "download", name], place)


def _call(item: Item, command: list[str], place: Path) -> Path:
    """What a command leaves in an empty folder."""
    try:
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise UserError(
            f"{item.name}: {item.address} needs {command[0]}, which is not on this machine; "
            "fetch it elsewhere and give a path"
        ) from None
    files = [path for path in place.iterdir() if path.is_file()]
    if done.returncode != 0 or len(files) != 1:
        words = (done.stderr.strip() or done.stdout.strip())[-WORDS:]
        raise UserError(f"{item.name}: `{' '.join(command)}` failed; is there network?\n{words}")
    return files[0]


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


def _unpack(file: Path, take: tuple[str, ...], folder: Path) -> None:
    """The members that are like a pattern; of a Debian package those of its data."""
    if file.name.endswith(".deb"):
        data = file.with_name("data.tar")
        _run_to_file(["dpkg-deb", "--fsys-tarfile", str(file)], data)
        _untar(data, take, folder)
        return
    try:
        (_unzip if file.name.endswith((".zip", ".whl")) else _untar)(file, take, folder)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise UserError(f"{file.name}: cannot be unpacked: {error}") from error


def _run_to_file(command: list[str], out: Path) -> None:
    try:
        with out.open("wb") as file:
            subprocess.run(command, stdout=file, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        raise UserError(f"{command[-1]}: cannot be unpacked: {error}") from error


def _untar(file: Path, take: tuple[str, ...], folder: Path) -> None:
    with tarfile.open(file) as archive:
        for member in archive:
            if member.isfile() and _is_taken(member.name, take):
                archive.extract(member, folder, filter="data")  # no way out of the folder


def _unzip(file: Path, take: tuple[str, ...], folder: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            if not name.endswith("/") and _is_taken(name, take):
                archive.extract(name, folder)  # drops what leads out of the folder


def _is_taken(name: str, take: tuple[str, ...]) -> bool:
    """Whether a member's path is like one of the patterns; `*` also stands for slashes."""
    path = name.removeprefix("./")
    return not take or any(fnmatchcase(path, pattern) for pattern in take)
