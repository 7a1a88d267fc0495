"""Tokens brought to experts and back: what megatron-core's layer of experts calls, by `kernels`.

T tokens, E experts, K that a token visits, P places in the order of experts, H columns.
"""

from collections.abc import Sequence
from typing import Any

import torch
from megatron.core.tensor_parallel.mappings import (
    all_to_all,
    gather_from_sequence_parallel_region,
)
from megatron.core.transformer.moe.experts import SequentialMLP
from megatron.core.transformer.moe.moe_layer import MoELayer
from megatron.core.transformer.moe.moe_utils import sort_chunks_by_idxs
from megatron.core.transformer.moe.token_dispatcher import MoEAlltoAllTokenDispatcher
from torch import Tensor

from megatron_jobs.kernels.experts import bring_rows, collect_rows, deal_visits


class Dispatcher(MoEAlltoAllTokenDispatcher):  # type: ignore[misc]
    """megatron-core's, whose rows go through `kernels.experts`.

    Where all experts are on this rank, each one's tokens are a tensor of their own from the start:
    they are not sorted, cut and joined again. Experts' outputs are weighed where they are added up,
    which reads them anyway, and not within each expert.
    """

    def dispatch_preprocess(
        self, hidden_states: Tensor, routing_map: Tensor, probs: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What is sent to other ranks, P rows; all tokens where there is no other."""
        assert self.shared_experts is None, "shared experts are not overlapped here"
        self.hidden_shape = hidden_states.shape
        self.probs, self.routing_map = probs, routing_map
        x_TH = hidden_states.view(-1, hidden_states.size(-1))
        self.tokens_per_expert = self.preprocess(routing_map)
        self.tokens_per_expert = self._maybe_dtoh_and_synchronize(
            "before_permutation_1", self.tokens_per_expert
        )
        self.deal = deal_visits(routing_map, self.config.moe_router_topk)
        self.weights_TK = probs.gather(1, self.deal.experts)
        if self.is_alone():
            return x_TH, probs
        return bring_rows(x_TH, self.deal, [self.deal.source.numel()])[0], probs

    def is_alone(self) -> bool:
        """Whether this rank has all experts, and all tokens that visit them."""
        return bool(self.ep_size == 1 and self.tp_size == 1)

    def token_dispatch(
        self, permutated_local_input_tokens: Tensor, permuted_probs: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Rows to the ranks that have their experts."""
        if self.is_alone():
            return permutated_local_input_tokens, permuted_probs
        self.tokens_per_expert = self._maybe_dtoh_and_synchronize(
            "before_ep_alltoall", self.tokens_per_expert
        )
        rows = all_to_all(
            self.ep_group, permutated_local_input_tokens, self.output_splits, self.input_splits
        )
        return rows, permuted_probs

    def dispatch_postprocess(
        self, global_input_tokens: Tensor, global_probs: Tensor
    ) -> tuple[Sequence[Tensor], Tensor, None]:
        """Each expert's tokens, and how many they are."""
        rows = global_input_tokens
        if self.tp_size > 1:
            splits = None if self.output_splits_tp is None else self.output_splits_tp.tolist()
            rows = gather_from_sequence_parallel_region(
                rows, group=self.tp_group, output_split_sizes=splits
            )
        counts = self._maybe_dtoh_and_synchronize("before_permutation_2", self.tokens_per_expert)
        if self.num_local_experts > 1 and not self.is_alone():
            order = self.sort_input_by_local_experts
            rows, _ = sort_chunks_by_idxs(
                rows, self.num_global_tokens_per_local_expert.ravel(), order
            )
        counts = self._maybe_dtoh_and_synchronize("before_finish", counts)
        self.tokens_per_expert = None
        if self.is_alone():
            return bring_rows(rows, self.deal, counts.tolist()), counts, None
        return torch.split(rows, counts.tolist()), counts, None

    def combine_preprocess(self, hidden_states: Sequence[Tensor]) -> Any:
        """Experts' outputs as they are sent back."""
        if self.is_alone():
            return hidden_states
        return super().combine_preprocess(torch.cat(list(hidden_states)))

    def token_combine(self, hidden_states: Any, *_: Any, **__: Any) -> Sequence[Tensor]:
        """Rows back to the ranks that sent them."""
        if self.is_alone():
            return list(hidden_states)
        moved: Tensor = super().token_combine(hidden_states)
        return [moved]

    def combine_postprocess(self, permutated_local_input_tokens: Sequence[Tensor]) -> Tensor:
        """The tokens again, in their shape."""
        y_TH = collect_rows(permutated_local_input_tokens, self.deal, self.weights_TK)
        return y_TH.view(self.hidden_shape)


class Experts(SequentialMLP):  # type: ignore[misc]
    """One block after the other, each with the tensor of its tokens."""

    def forward(
        self, permuted_local_hidden_states: Sequence[Tensor], *_: Any
    ) -> tuple[list[Tensor], None]:
        """Their outputs; the second is for a bias yet to be added, of which there is none."""
        outputs = []
        for expert, x in zip(self.local_experts, permuted_local_hidden_states, strict=True):
            values, bias = expert(x)
            outputs.append(values if bias is None else values + bias)
        return outputs, None


class MixedLayer(MoELayer):  # type: ignore[misc]
    """megatron-core's layer of experts with our way to them."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        local = self.num_local_experts, self.local_expert_indices
        groups = given["pg_collection"]
        self.token_dispatcher = Dispatcher(*local, config=self.config, pg_collection=groups)
