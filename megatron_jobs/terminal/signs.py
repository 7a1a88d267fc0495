"""Signs that an output's encoding does not have."""

import io
import sys


def spare_signs() -> None:
    """From now on print what the encoding of the output cannot hold as `\\xe9`, not as an error.

    Names and logs are what people make them, and LANG=C is what they find on a cluster.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
