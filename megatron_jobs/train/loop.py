"""The training loop: step, log, evaluate, save, stop; plain lines in this order."""

import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from megatron_jobs.checkpoint.manifest import latest_checkpoint
from megatron_jobs.checkpoint.save import save_checkpoint
from megatron_jobs.checkpoint.state import Training
from megatron_jobs.config.loop import LoopConfig
from megatron_jobs.errors import Stopped, UserError
from megatron_jobs.parallel.device import engine_device, peak_bytes, wait_for_device
from megatron_jobs.runtime.heartbeat import beat
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.runtime.stop import deferred_stop, stop_reason
from megatron_jobs.runtime.switches import Wish, forget_save, wish_of_people
from megatron_jobs.train.board import SilentBoard, open_board
from megatron_jobs.train.feed import Feed
from megatron_jobs.train.start import CHECKPOINTS, Load, resume
from megatron_jobs.train.step import Engine, StepResult, evaluate_loss, train_step


@deferred_stop()
def train(
    config: LoopConfig,
    engine: Engine,
    feed: Feed,
    *,
    rank: Rank,
    folder: Path,
    record: dict[str, Any],
    load: Load | None = None,
) -> dict[str, float]:
    """Train from the latest checkpoint in `folder`, or from the start; returns the last numbers.

    Args:
        record: goes into every checkpoint beside the loop's own notes.
        load: gone on from while there is no checkpoint in `folder`.
    Raises: Stopped after a stop signal or by the switch KILL, with everything saved.
    """
    training, root = _training(engine, rank), folder / CHECKPOINTS
    start, numbers = resume(root, training, record, load)
    speed, skips = dict[str, float](), 0
    with open_board(rank, folder, start=start, steps=config.steps) as board:
        for step in range(start + 1, config.steps + 1):
            result, seconds = _timed_step(engine, feed, step)
            skips = _count_skips(skips, result, config, root)
            numbers |= {"loss": result.loss}
            speed = {"tokens_per_second": result.tokens / seconds}
            last = step == config.steps
            if last or due(step, config.log_every):
                board.record(step, "train", _step_numbers(result, seconds))
            board.show(step, **numbers, **speed)
            if last or due(step, config.evaluate_every):
                numbers |= _validate(config, engine, feed, board, step)
            wish = common_wish(rank, folder)
            if last or wish or due(step, config.save_every):
                board.sync()
                _save(root, step, training, record | {"numbers": numbers}, config.keep)
            _forget(wish, rank, folder)
            if wish == Wish.STOP and not last:
                raise Stopped(f"after step {step}, state saved")
    return numbers | speed | {"steps": config.steps}


def _training(engine: Engine, rank: Rank) -> Training:
    """What is saved and loaded."""
    return Training(engine.chunks, engine.optimizer, layout_of(engine, rank))


def _save(root: Path, step: int, training: Training, notes: dict[str, Any], keep: int) -> None:
    beat(step, "save")
    samples = step * notes["samples_per_step"]
    save_checkpoint(root, step, training, notes | {"samples": samples}, keep=keep)


def _forget(wish: Wish, rank: Rank, folder: Path) -> None:
    """A wish that was heeded."""
    if wish and rank.leads:
        forget_save(folder)


def due(step: int, every: int) -> bool:
    """Whether something done every so many steps is done after this one; 0 is never."""
    return every > 0 and step % every == 0


def layout_of(engine: Engine, rank: Rank) -> dict[str, int | bool | str]:
    """Device, ranks and mesh: what must be equal for a resume bit for bit."""
    return {
        "device": engine_device().type,
        "world": rank.world,
        **engine.mesh.layout(engine.model.layers),
    }


def common_wish(rank: Rank, folder: Path) -> Wish:
    """What any rank was asked for by a signal, or the leader by a switch; the same on all ranks."""
    wish = wish_of_people(folder) if rank.leads else Wish.NOTHING
    if stop_reason():
        wish = Wish.STOP
    common = torch.tensor([int(wish)], dtype=torch.int32, device=engine_device())
    dist.all_reduce(common, op=dist.ReduceOp.MAX)
    return Wish(int(common.item()))


def _count_skips(skips: int, result: StepResult, config: LoopConfig, root: Path) -> int:
    """Steps in a row that were refused, this one included; UserError when they are too many."""
    if not result.skipped:
        return 0
    if skips < config.max_skips:
        return skips + 1
    found = f"loss or gradient norm was not finite in {skips + 1} steps in a row"
    before = latest_checkpoint(root)
    last = f"; the latest checkpoint is {before.name}" if before else ""
    raise UserError(f"optim: {found}; lower lr or clip, or warm up for longer{last}")


def _timed_step(engine: Engine, feed: Feed, step: int) -> tuple[StepResult, float]:
    """What a step did, and its seconds."""
    began = time.perf_counter()
    beat(step, "data")
    result = train_step(engine, feed.train(step), step)
    wait_for_device()
    beat(step, "log", own_seconds=engine.own_time.seconds())
    return result, time.perf_counter() - began


def _validate(
    config: LoopConfig, engine: Engine, feed: Feed, board: SilentBoard, step: int
) -> dict[str, float]:
    batches = min(config.evaluate_batches, feed.validation_batches)
    if batches == 0:
        return {}
    beat(step, "evaluate")
    losses = [evaluate_loss(engine, feed.validation(n)) for n in range(batches)]
    loss = sum(part.total for part in losses) / max(sum(part.tokens for part in losses), 1)
    board.record(step, "validation", {"loss": loss})
    return {"validation_loss": loss}


def _step_numbers(result: StepResult, seconds: float) -> dict[str, float]:
    return {
        "loss": result.loss,
        "gradient_norm": result.grad_norm,
        "learning_rate": result.learning_rate,
        "tokens": result.tokens,
        "tokens_per_second": result.tokens / seconds,
        "seconds": seconds,
        "peak_memory_gib": peak_bytes() / 2**30,
        "skipped": float(result.skipped),
    }
