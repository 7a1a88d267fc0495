"""Names of token files as people know them."""

from pathlib import Path

import pytest

from megatron_jobs.data.source_name import source_name, source_path


@pytest.mark.parametrize(
    ("prefix", "name", "path"),
    [
        ("/run/web/tokens/tokens", "web", "/run/web/tokens"),
        ("/run/mix/index/../../web/tokens/tokens", "web", "/run/web/tokens"),
        ("../../web/tokens/tokens", "web", "../../web/tokens"),
        ("/data/books", "books", "/data/books.bin"),
        ("/data/books.v1", "books.v1", "/data/books.v1.bin"),
    ],
)
def test_a_job_or_a_bare_file(prefix: str, name: str, path: str) -> None:
    assert source_name(Path(prefix)) == name
    assert source_path(Path(prefix)) == Path(path)
