"""Conversions that are wrong on purpose: one row of a family's table read in another way."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.convert.family import Family, Row
from megatron_jobs.convert.forms import Form, Order, grouped
from megatron_jobs.convert.leaves import shape_of
from megatron_jobs.convert.matrix import Matrix, Stored

Change = Callable[[Row], Row]
Rows = Callable[[Order, ModelConfig], Order]


def faulty(family: Family, part: str, change: Change) -> Family:
    """The family with the rows of its table whose name has `part` in it changed."""
    changed = [change(row) if part in row.ours else row for row in family.table]
    assert changed != list(family.table), f"no row of {family.name} has {part}"
    return dataclasses.replace(family, table=tuple(changed))


def reordered(rows: Rows) -> Change:
    """Rows of ours are taken from theirs (all of theirs, one below the other) in another order."""

    def change(row: Row) -> Row:
        right = row.form.order or (lambda model: np.arange(rows_of_theirs(row, model)))

        def order(model: ModelConfig) -> Order:
            return rows(np.arange(len(right(model))), model)[right(model)]

        return dataclasses.replace(row, form=dataclasses.replace(row.form, order=order))

    return change


def rows_of_theirs(row: Row, model: ModelConfig) -> int:
    """How many rows theirs have together, where no order says it."""
    if row.form.padded:
        return model.vocab_size
    return shape_of(row.ours.format(layer=0, expert=0), model)[0]


def swapped(first: int, second: int) -> Change:
    """Two of theirs are taken for each other."""

    def change(row: Row) -> Row:
        names = list(row.theirs)
        names[first], names[second] = names[second], names[first]
        return dataclasses.replace(row, theirs=tuple(names))

    return change


def with_form(form: Form) -> Change:
    """Another form."""
    return lambda row: dataclasses.replace(row, form=form)


def pairs_of_halves(order: Order, model: ModelConfig) -> Order:
    """q and k of each head: halves become neighbouring pairs, as Meta keeps them."""
    return _of_heads(order, model, lambda head: head.reshape(2, -1).T.reshape(-1))


def halves_of_pairs(order: Order, model: ModelConfig) -> Order:
    """The way back, done to what is in halves already."""
    return _of_heads(order, model, lambda head: head.reshape(-1, 2).T.reshape(-1))


def _of_heads(order: Order, model: ModelConfig, turn: Callable[[Order], Order]) -> Order:
    made = order.copy()
    size = model.head_size()
    for head in range(model.heads + model.groups()):
        at = slice(head * size, (head + 1) * size)
        made[at] = turn(order[at])
    return made


def heads_of_queries(*heads: int) -> Rows:
    """Query heads in another order."""

    def order(rows: Order, model: ModelConfig) -> Order:
        made, size = rows.copy(), model.head_size()
        queries = rows[: model.heads * size].reshape(model.heads, size)
        made[: model.heads * size] = queries[list(heads)].reshape(-1)
        return made

    return order


def heads_of_keys(*heads: int) -> Rows:
    """Key heads in another order."""

    def order(rows: Order, model: ModelConfig) -> Order:
        made, size = rows.copy(), model.head_size()
        at = slice(model.heads * size, (model.heads + model.groups()) * size)
        made[at] = rows[at].reshape(-1, size)[list(heads)].reshape(-1)
        return made

    return order


def read_by_head(model: ModelConfig) -> Order:
    """What would be right if q, k and v of each head lay together; they lie one after another."""
    by_head = np.arange(3 * model.heads * model.head_size()).reshape(model.heads, 3, -1)
    one_after_another = by_head.transpose(1, 0, 2).reshape(-1)
    return one_after_another[grouped(model)]


def interleaved(order: Order, model: ModelConfig) -> Order:
    """Gate and up row by row in turn."""
    return order.reshape(2, -1).T.reshape(-1)


def shifted(order: Order, model: ModelConfig) -> Order:
    """Every row one further."""
    return np.roll(order, 1)


def in_another_order(names: Mapping[str, Matrix], *experts: int) -> dict[str, Matrix]:
    """Tensors of layer 1 whose experts are others'."""
    found = dict(names)
    for number, other in enumerate(experts):
        for name in names:
            part = name.partition(f"layers.1.mlp.experts.local_experts.{number}.")[2]
            if part:
                found[name] = names[f"decoder.layers.1.mlp.experts.local_experts.{other}.{part}"]
    return found


def lost(names: Mapping[str, Matrix], part: str) -> dict[str, Matrix]:
    """Tensors of which those with `part` in their name are zero."""
    assert any(part in name for name in names), f"no tensor has {part}"
    zeros = {n: Stored(np.zeros_like(m.array())) for n, m in names.items() if part in n}
    return {**names, **zeros}
