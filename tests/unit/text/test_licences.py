"""Groups of licences, by SPDX ids and by what sources say instead."""

import pytest

from megatron_jobs.text.licences import licence_group


@pytest.mark.parametrize(
    ("licence", "group"),
    [
        ("CC0-1.0", "public domain"),
        ("Public Domain", "public domain"),
        ("https://creativecommons.org/publicdomain/zero/1.0/", "public domain"),
        ("MIT", "permissive"),
        ("MIT-0", "permissive"),
        ("CC-BY-4.0", "permissive"),
        ("cc_by_3.0", "permissive"),
        ("BSD-3-Clause", "permissive"),
        ("Apache 2.0", "permissive"),
        ("CC-BY-SA-4.0", "share-alike"),
        ("http://creativecommons.org/licenses/by-sa/3.0/deed.de", "share-alike"),
        ("GFDL-1.3-or-later", "share-alike"),
        ("CC-BY-NC-SA-4.0", "non-commercial"),
        ("CC-BY-NC-ND-4.0", "non-commercial"),
        ("CC-BY-ND-4.0", "no derivatives"),
        ("GPL-2.0-only WITH Classpath-exception-2.0", "copyleft code"),
        ("GPLv3", "copyleft code"),
        ("MIT OR GPL-3.0-only", "permissive"),
        ("(MIT AND GPL-3.0-only)", "copyleft code"),
        ("MIT AND Somebody-1.0", "unknown"),
        ("Mitre", "unknown"),
        ("", "unknown"),
        ("all rights reserved", "unknown"),
    ],
)
def test_groups(licence: str, group: str) -> None:
    assert licence_group(licence) == group


def test_ones_own() -> None:
    own = {"house": "permissive", "mit": "non-commercial"}
    assert [licence_group(name, own) for name in ("House-2", "MIT", "ISC")] == [
        "permissive",
        "non-commercial",
        "permissive",
    ]
