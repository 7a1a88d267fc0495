"""What licences ask of those who use the texts, in few groups.

An SPDX id is looked up by its longest known beginning; `A OR B` is the freer of both, `A AND B` the
stricter. Addresses of Creative Commons licences are read as their ids.
"""

import re
from collections.abc import Mapping

PUBLIC_DOMAIN, PERMISSIVE, SHARE_ALIKE = "public domain", "permissive", "share-alike"
COPYLEFT, NO_DERIVATIVES = "copyleft code", "no derivatives"
NON_COMMERCIAL, UNKNOWN = "non-commercial", "unknown"
GROUPS = (
    PUBLIC_DOMAIN,
    PERMISSIVE,
    SHARE_ALIKE,
    COPYLEFT,
    NO_DERIVATIVES,
    NON_COMMERCIAL,
    UNKNOWN,
)
"""From the freest to what nobody knows; what a name stands for is no legal advice."""
BEGINNINGS = {
    PUBLIC_DOMAIN: "cc0 cc-pddc cc-pdm pddl unlicense public-domain publicdomain pd us-gov",
    PERMISSIVE: "mit apache bsd 0bsd isc cc-by odc-by zlib psf python-2 bsl-1.0 postgresql "
    "artistic x11 ncsa unicode w3c wtfpl blueoak upl ms-pl hpnd openssl ogl-uk etalab cdla-perm "
    "libpng curl ruby tcl afl ecl naist fsfap ofl",
    SHARE_ALIKE: "cc-by-sa cc-sa odbl gfdl fdl cdla-sharing ogl-1.0a fal lal",
    COPYLEFT: "gpl lgpl agpl mpl epl cddl eupl osl cecill ms-rl cpl ipl sleepycat",
    NO_DERIVATIVES: "cc-by-nd",
    NON_COMMERCIAL: "cc-by-nc cc-nc polyform-noncommercial",
}
TABLE = {start: group for group, starts in BEGINNINGS.items() for start in starts.split()}
CREATIVE = re.compile(r"creativecommons\.org/(?:licenses|publicdomain)/([a-z-]+)(?:/([\d.]+))?")
WORDS = re.compile(r"\s+(or|and)\s+")


def licence_group(licence: str, own: Mapping[str, str] | None = None) -> str:
    """One of GROUPS, for a licence as its source states it.

    Args:
        own: beginnings of names in lower case -> group, looked at before ours.
    """
    name = licence.strip().lower().strip("()")
    if not name:
        return UNKNOWN
    table = TABLE | dict(own or {})
    parts = WORDS.split(name)
    found = _group(parts[0], table)
    for word, part in zip(parts[1::2], parts[2::2], strict=True):
        choose = min if word == "or" else max
        found = choose(found, _group(part, table), key=_strictness)
    return found


def _strictness(group: str) -> int:
    return GROUPS.index(group)


def _group(name: str, table: Mapping[str, str]) -> str:
    address = CREATIVE.search(name)
    if address:
        kind = {"zero": "cc0", "mark": "cc-pdm"}.get(address[1], f"cc-{address[1]}")
        name = f"{kind}-{address[2]}" if address[2] else kind
    name = name.strip("() ").partition(" with ")[0].replace("_", "-").replace(" ", "-")
    known = [start for start in table if _begins(name, start)]
    return table[max(known, key=len)] if known else UNKNOWN


def _begins(name: str, start: str) -> bool:
    """Whether whole words of the name are the start: of `mit-0` and `gplv3`, not of `mitre`."""
    rest = name[len(start) :]
    return name.startswith(start) and re.match(r"v?[^a-z]|$", rest) is not None
