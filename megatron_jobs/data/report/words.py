"""Counts as people read them."""

UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def say_count(count: float) -> str:
    """12,345; 1.23 M from ten million on."""
    if count < 10_000_000:
        return f"{count:,.0f}"
    return f"{count / 1e6:,.1f} M" if count < 10e9 else f"{count / 1e9:,.2f} G"


def say_bytes(count: float) -> str:
    """In units of powers of 1000."""
    for unit in UNITS:
        if count < 1000 or unit == UNITS[-1]:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    raise AssertionError("the last unit takes all")


def say_share(part: float, whole: float) -> str:
    """12.3 %; never 0 % or 100 % of what is not none or all."""
    if not whole:
        return "–"
    share = 100 * part / whole
    if 0 < share < 0.1:
        return "< 0.1 %"
    if 99.9 < share < 100:
        return "> 99.9 %"
    return f"{share:.1f} %"
