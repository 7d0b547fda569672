"""The controller: a two-layer LSTM that writes an architecture (AutoSegNet, section III.A and Fig. 5).

What the paper leaves open follows ENAS's micro search (Pham et al. 2018): inputs are chosen by
attention over the places that can be read, logits are bounded by a scaled tanh, operation logits
are tempered once more, and all weights start in U(-0.1, 0.1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from napari_autosegnet.architecture import LAYER_INPUTS, PREVIOUS, Architecture, Decision, SearchSpace


@dataclass(frozen=True)
class Sample:
    """Architectures written by the controller, with what REINFORCE needs of them.

    Attributes
    ----------
    choices : Tensor
        (n, decisions) int64, one choice per decision of the space.
    log_probabilities : Tensor
        (n, decisions); their sum is the log-probability of the architecture.
    entropies : Tensor
        (n, decisions) entropy of each decision's distribution, not of the choice made.
    """

    choices: Tensor
    log_probabilities: Tensor
    entropies: Tensor

    def architectures(self, space: SearchSpace) -> list[Architecture]:
        return [space.decode(row) for row in self.choices.tolist()]


class Controller(nn.Module):
    """Two-layer LSTM over the decisions of a search space, one state through all of them.

    Parameters
    ----------
    space : SearchSpace
    hidden : int
        Units of each LSTM layer.
    tanh_bound : float
        Logits lie within plus and minus this.
    operation_temperature : float
        Operation logits are divided by this, so that operations stay open longer than inputs.
    generator : torch.Generator
        Source of the initial weights.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        hidden: int = 64,
        tanh_bound: float = 1.10,
        operation_temperature: float = 2.5,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.space = space
        self.tanh_bound = tanh_bound
        self.operation_temperature = operation_temperature
        self.lower = nn.LSTMCell(hidden, hidden)
        self.upper = nn.LSTMCell(hidden, hidden)
        self.start = nn.Parameter(torch.empty(hidden))
        self.input_embedding = nn.Embedding(LAYER_INPUTS, hidden)
        self.operation_embedding = nn.Embedding(len(space.operations), hidden)
        self.skip_embedding = nn.Embedding(2, hidden)
        self.anchor_key = nn.Linear(hidden, hidden, bias=False)
        self.anchor_query = nn.Linear(hidden, hidden, bias=False)
        self.anchor_score = nn.Linear(hidden, 1, bias=False)
        self.operation_head = nn.Linear(hidden, len(space.operations), bias=False)
        self.skip_head = nn.Linear(hidden, 2, bias=False)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.uniform_(-0.1, 0.1, generator=generator)

    @property
    def least_entropy(self) -> float:
        """Entropy in nats where each decision is as sure as its bound allows: still many architectures."""
        return sum(_least_entropy(each.choices, self._bound(each)) for each in self.space.decisions)

    @property
    def largest_identity_fraction(self) -> float:
        """Most of the operations that can be identities, in the mean, as the bound holds all others possible."""
        others = len(self.space.operations) - 1
        if "identity" not in self.space.operations or not others:
            return 0.0
        return 1 / (1 + others * math.exp(-2 * self.tanh_bound / self.operation_temperature))

    def _bound(self, decision: Decision) -> float:
        return self.tanh_bound / self.operation_temperature if decision.kind == "operation" else self.tanh_bound

    def sample(self, count: int, generator: torch.Generator) -> Sample:
        """Write ``count`` architectures."""
        return self._write(count, None, generator)

    def evaluate(self, choices: Tensor) -> Sample:
        """Probabilities and entropies of given choices (n, decisions)."""
        return self._write(len(choices), choices, None)

    def _write(self, count: int, given: Tensor | None, generator: torch.Generator | None) -> Sample:
        hidden = self.lower.hidden_size
        zeros = torch.zeros(count, hidden)
        state = (zeros, zeros, zeros, zeros)
        fed = self.start.expand(count, hidden)
        decisions = self.space.decisions
        last_input = {d.layer: d for d in decisions if d.kind == "input"}
        last_operation = {d.layer: d for d in decisions if d.kind == "operation"}
        identity = self.space.operations.index("identity") if "identity" in self.space.operations else None
        anchors: list[Tensor] = []
        chosen: list[Tensor] = []
        log_probabilities: list[Tensor] = []
        entropies: list[Tensor] = []
        layer: str | None = None
        only_identity = torch.ones(count, dtype=torch.bool)
        reads_previous = torch.zeros(count, dtype=torch.bool)
        for index, decision in enumerate(decisions):
            if decision.kind == "input" and decision.layer != layer:
                # A new layer: anchors for h[t-2] and h[t-1], written by the LSTM itself.
                layer, anchors = decision.layer, []
                only_identity = torch.ones(count, dtype=torch.bool)
                reads_previous = torch.zeros(count, dtype=torch.bool)
                for place in range(LAYER_INPUTS):
                    state = self._step(fed, state)
                    anchors.append(state[2])
                    fed = self.input_embedding.weight[place].expand(count, hidden)
            state = self._step(fed, state)
            logits = self._logits(decision, state[2], anchors)
            # What `SearchSpace.allows` refuses is impossible.
            forbidden = torch.zeros_like(logits, dtype=torch.bool)
            if decision == last_operation.get(decision.layer) and identity is not None:
                forbidden[:, identity] = only_identity
            if decision == last_input.get(decision.layer) and layer == "up" and self.space.long_skips:
                forbidden[:] = ~reads_previous[:, None]
                forbidden[:, PREVIOUS] = False
            logits = logits.masked_fill(forbidden, -torch.inf)
            log_p = logits.log_softmax(dim=1)
            p = log_p.exp()
            if given is None:
                choice = torch.multinomial(p.detach(), 1, generator=generator).squeeze(1)
            else:
                choice = given[:, index]
            chosen.append(choice)
            log_probabilities.append(log_p.gather(1, choice[:, None]).squeeze(1))
            entropies.append(-(p * log_p.masked_fill(p == 0, 0.0)).sum(dim=1))
            if decision.kind == "input":
                reads_previous = reads_previous | (choice == PREVIOUS)
                fed = torch.stack(anchors, dim=1)[torch.arange(count), choice]
            elif decision.kind == "operation":
                only_identity = only_identity & (choice == identity if identity is not None else torch.tensor(False))
                fed = self.operation_embedding(choice)
                if decision.node == 1:
                    # The cell is complete: later cells of the layer may read it.
                    anchors.append(state[2])
            else:
                fed = self.skip_embedding(choice)
        return Sample(torch.stack(chosen, dim=1), torch.stack(log_probabilities, dim=1), torch.stack(entropies, dim=1))

    def _step(self, fed: Tensor, state: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        lower_hidden, lower_cell = self.lower(fed, (state[0], state[1]))
        upper_hidden, upper_cell = self.upper(lower_hidden, (state[2], state[3]))
        return lower_hidden, lower_cell, upper_hidden, upper_cell

    def _logits(self, decision: Decision, hidden: Tensor, anchors: Sequence[Tensor]) -> Tensor:
        if decision.kind == "input":
            keys = self.anchor_key(torch.stack(list(anchors[: decision.choices]), dim=1))
            scores = self.anchor_score(torch.tanh(keys + self.anchor_query(hidden)[:, None])).squeeze(2)
            return self._bound(decision) * torch.tanh(scores)
        head = self.operation_head if decision.kind == "operation" else self.skip_head
        return self._bound(decision) * torch.tanh(head(hidden))


def _least_entropy(choices: int, bound: float) -> float:
    """Entropy of one choice with the logit ``bound`` beside others with its negative."""
    rest = math.exp(-2 * bound)
    total = 1 + (choices - 1) * rest
    return math.log(total) + (choices - 1) * rest / total * 2 * bound
