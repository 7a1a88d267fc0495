"""The loss curve of a run as a picture, from its metrics.jsonl."""

from pathlib import Path

from megatron_jobs.runtime.files import whole_file
from megatron_jobs.runtime.journal import NAME, read_journal

PLOT = "loss.svg"


def plot_losses(folder: Path) -> bool:
    """Write FOLDER/loss.svg; False when matplotlib (extra `demo`) is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    records = read_journal(folder / NAME)
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="loss (nats per token)")
    for kind, style in (("train", "-"), ("validation", "o-")):
        points = [
            (r["step"], r["loss"])
            for r in records
            if r.get("kind") == kind and r.get("loss") is not None
        ]
        axes.plot([x for x, _ in points], [y for _, y in points], style, label=kind, markersize=4)
    axes.grid(alpha=0.3)
    axes.legend()
    with whole_file(folder / PLOT) as part:
        figure.savefig(part, format="svg", metadata={"Date": None})
    return True
