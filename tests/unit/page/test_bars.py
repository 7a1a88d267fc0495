"""Plots whose every length is a share of a scale that can be read."""

import re
from itertools import pairwise

import pytest

from megatron_jobs.page.bars import Bar, Column, draw_bars, draw_columns

HOSTILE = "<b>&\"'"


def scale_of(page: str) -> list[tuple[float, float]]:
    """(value, per cent of the height) of each mark."""
    marks = re.findall(r'<span style="bottom:([\d.]+)%">([\d.,]+)</span>', page)
    return [(float(value.replace(",", "")), float(height)) for height, value in marks]


@pytest.mark.parametrize("most", [0.0007, 0.3, 1, 3.99, 4, 4.01, 10, 77, 1234, 2_500_000])
def test_columns_stand_on_the_scale_beside_them(most: float) -> None:
    values = [most, most / 3, 0.0]
    page = draw_columns("T", ("a",), [Column(str(v), [v], "said") for v in values])
    marks = scale_of(page)
    assert marks[0] == (0, 0)
    assert 2 <= len(marks) - 1 <= 4 or marks[-1][0] == most
    top, height = marks[-1]
    assert height == 100
    assert most <= top <= 2.5 * most
    steps = {round((b[0] - a[0]) / top, 6) for a, b in pairwise(marks)}
    assert len(steps) == 1
    first = f"{marks[1][0]:e}"[0]
    assert first in "125"
    assert all(height == pytest.approx(100 * value / top, abs=0.01) for value, height in marks)
    heights = [float(found) for found in re.findall(r"height:max\(([\d.]+)%", page)]
    assert heights == pytest.approx([100 * value / top for value in values], abs=0.01)


def test_nothing_is_a_plot_too() -> None:
    assert scale_of(draw_columns("T", ("a",), [Column("x", [0], "none")]))[0] == (0, 0)
    assert "<figcaption>T</figcaption>" in draw_bars("T", [])


def test_titles_and_names_are_seen_and_escaped() -> None:
    columns = draw_columns(
        HOSTILE, (HOSTILE, "b"), [Column(HOSTILE, [1, 2], HOSTILE)], along=HOSTILE
    )
    bars = draw_bars(HOSTILE, [Bar(HOSTILE, [("first", 1)], HOSTILE)])
    assert "<b>" not in columns + bars
    shown = "&lt;b&gt;&amp;&quot;&#x27;"
    assert f"<figcaption>{shown}</figcaption>" in columns
    assert f'<p class="along">{shown}</p>' in columns
    assert f'<span class="under">{shown}</span>' in columns
    assert f'is-kept"></span>{shown}</li>' in columns
    assert f"<figcaption>{shown}</figcaption>" in bars
