"""The architecture: what the search decides, and nothing else.

An architecture is one layer of each kind (down, bridge, up) and the long-skip bits. It does not
depend on image size or channel counts: the network stacks its layers as deep as the image size asks
(AutoSegNet, section III.A-B). This module knows no torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from napari_autosegnet.errors import UserError, first_problem
from napari_autosegnet.json_files import parse_json, read_json

Operation = Literal["sep_conv_3x3", "sep_conv_5x5", "hdc_3x3", "identity", "conv_3x3"]
LayerKind = Literal["down", "bridge", "up"]

#: The paper's four (section I).
PAPER_OPERATIONS: tuple[Operation, ...] = ("sep_conv_3x3", "sep_conv_5x5", "hdc_3x3", "identity")
#: And the convolution that U-Net consists of: see docs/benchmarks/notes/search-earlier.md for what it brings.
OPERATIONS: tuple[Operation, ...] = (*PAPER_OPERATIONS, "conv_3x3")
LAYER_KINDS: tuple[LayerKind, ...] = ("down", "bridge", "up")
NODES_PER_CELL = 2
CELLS_PER_LAYER = 3
#: More than this no search space has, and no file may ask for.
MAX_CELLS = 8
MAX_LEVELS = 32
#: Inputs every cell can read: 0 is h[t-2], 1 is h[t-1]; input 2 + i is cell i of the same layer.
LAYER_INPUTS = 2
#: h[t-1], which a long skip is joined to.
PREVIOUS = 1

FORMAT = "napari-autosegnet/architecture"
FORMAT_VERSION = 1
_GIVE = "give an architecture.json of a run"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Node(_Frozen):
    """One operation and the input that it reads (0: h[t-2], 1: h[t-1], 2 + i: cell i)."""

    operation: Operation
    input: Annotated[int, Field(ge=0)]


class Cell(_Frozen):
    """Two nodes; their outputs are added (as in ENAS)."""

    nodes: tuple[Node, Node]


class Layer(_Frozen):
    """Cells in the order in which they are computed; a cell may read the cells before it."""

    cells: Annotated[tuple[Cell, ...], Field(min_length=1, max_length=MAX_CELLS)]

    @field_validator("cells")
    @classmethod
    def _inputs_exist(cls, cells: tuple[Cell, ...]) -> tuple[Cell, ...]:
        for index, cell in enumerate(cells):
            for node in cell.nodes:
                if node.input >= LAYER_INPUTS + index:
                    raise ValueError(f"cell {index} reads input {node.input}, which is not computed before it")
        return cells

    @property
    def loose_ends(self) -> tuple[int, ...]:
        """Indices of the cells that no other cell reads: the layer's output."""
        read = {node.input - LAYER_INPUTS for cell in self.cells for node in cell.nodes}
        return tuple(i for i in range(len(self.cells)) if i not in read)

    @property
    def inputs_read(self) -> frozenset[int]:
        """Which of h[t-2] (0) and h[t-1] (1) the layer reads."""
        return frozenset(n.input for c in self.cells for n in c.nodes if n.input < LAYER_INPUTS)

    @property
    def is_identity(self) -> bool:
        return all(node.operation == "identity" for cell in self.cells for node in cell.nodes)


class Architecture(_Frozen):
    """One layer of each kind and the long-skip bits.

    ``skips[0]`` joins the innermost (down, up) pair of levels, next to the bridge. A network with
    more levels than bits repeats the outermost bit for its extra levels.
    """

    down: Layer
    bridge: Layer
    up: Layer
    skips: Annotated[tuple[bool, ...], Field(min_length=1, max_length=MAX_LEVELS)]

    def layer(self, kind: LayerKind) -> Layer:
        layer: Layer = getattr(self, kind)
        return layer

    def skip_at(self, level: int) -> bool:
        """Whether the (down, up) pair at ``level``, counted from the bridge outwards, is joined."""
        return self.skips[min(level, len(self.skips) - 1)]

    @property
    def nodes(self) -> Iterator[Node]:
        for kind in LAYER_KINDS:
            for cell in self.layer(kind).cells:
                yield from cell.nodes

    @property
    def identity_fraction(self) -> float:
        operations = [node.operation for node in self.nodes]
        return operations.count("identity") / len(operations)

    def to_json(self) -> str:
        content: dict[str, Any] = {"format": FORMAT, "version": FORMAT_VERSION, **self.model_dump(mode="json")}
        return json.dumps(content, indent=1) + "\n"

    @property
    def digest(self) -> str:
        """SHA-256 of what `to_json` gives."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @classmethod
    def from_json(cls, text: str, source: str = "the architecture") -> Architecture:
        """Read what `to_json` wrote.

        Raises
        ------
        UserError
            When the text is not an architecture, or one of a newer version.
        """
        return cls._from_content(parse_json(text, source, _GIVE), source)

    @classmethod
    def load(cls, path: Path) -> Architecture:
        """Read a file that holds what `to_json` wrote; errors as there."""
        return cls._from_content(read_json(path, _GIVE), str(path))

    @classmethod
    def _from_content(cls, content: Any, source: str) -> Architecture:
        if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
            raise UserError(f"{source} is not an architecture (no format '{FORMAT}'); {_GIVE}")
        version = content.pop("version", None)
        if version != FORMAT_VERSION:
            raise UserError(
                f"{source} has architecture version {version!r}, this program reads {FORMAT_VERSION}; "
                "update napari-autosegnet"
            )
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise UserError(f"{source} is damaged {first_problem(error)}; {_GIVE}") from error


class Decision(_Frozen):
    """One choice on the way to an architecture."""

    kind: Literal["input", "operation", "skip"]
    choices: int
    layer: LayerKind | None = None
    cell: int = 0
    node: int = 0
    level: int = 0


class SearchSpace(_Frozen):
    """The set of architectures that a search may choose from.

    The ablations of the paper and ours are smaller spaces: without an operation, without short
    skips (cells read only h[t-2] and h[t-1]), without long skips.
    """

    operations: Annotated[tuple[Operation, ...], Field(min_length=1)] = Field(
        OPERATIONS, description="Operations to choose from"
    )
    cells: Annotated[int, Field(ge=1, le=MAX_CELLS)] = Field(CELLS_PER_LAYER, description="Cells per layer (paper: 3)")
    levels: Annotated[int, Field(ge=1, le=MAX_LEVELS)] = Field(
        2, description="Long skips to decide; a search sets it to its depth", json_schema_extra={"computed": True}
    )
    short_skips: bool = Field(True, description="Cells may read the cells before them in their layer")
    long_skips: bool = Field(True, description="Encoder and decoder may be joined")

    @model_validator(mode="after")
    def _not_identity_alone(self) -> SearchSpace:
        if set(self.operations) == {"identity"}:
            raise ValueError("a search space needs an operation other than identity")
        return self

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """Every choice in the paper's order: down, bridge, up, then the long skips."""
        decisions: list[Decision] = []
        for kind in LAYER_KINDS:
            for cell in range(self.cells):
                inputs = LAYER_INPUTS + (cell if self.short_skips else 0)
                for node in range(NODES_PER_CELL):
                    decisions.append(Decision(kind="input", choices=inputs, layer=kind, cell=cell, node=node))
                    decisions.append(
                        Decision(kind="operation", choices=len(self.operations), layer=kind, cell=cell, node=node)
                    )
        if self.long_skips:
            decisions.extend(Decision(kind="skip", choices=2, level=level) for level in range(self.levels))
        return tuple(decisions)

    def decode(self, choices: Sequence[int]) -> Architecture:
        """Architecture written by one choice per decision."""
        expected = self.decisions
        if len(choices) != len(expected):
            raise ValueError(f"{len(choices)} choices for {len(expected)} decisions")
        queue = iter(choices)
        layers = {}
        for kind in LAYER_KINDS:
            cells = []
            for _ in range(self.cells):
                nodes = []
                for _ in range(NODES_PER_CELL):
                    source = int(next(queue))
                    nodes.append(Node(input=source, operation=self.operations[int(next(queue))]))
                cells.append(Cell(nodes=(nodes[0], nodes[1])))
            layers[kind] = Layer(cells=tuple(cells))
        skips = tuple(bool(choice) for choice in queue) or (False,) * self.levels
        return Architecture(**layers, skips=skips)

    def encode(self, architecture: Architecture) -> tuple[int, ...]:
        """The choices that `decode` turns into ``architecture``."""
        choices: list[int] = []
        for node in architecture.nodes:
            choices += [node.input, self.operations.index(node.operation)]
        if self.long_skips:
            choices += [int(architecture.skip_at(level)) for level in range(self.levels)]
        return tuple(choices)

    def allows(self, architecture: Architecture) -> bool:
        """Whether the architecture may be sampled.

        No layer consists of identities alone, and the up layer reads h[t-1], which the long skips are joined to.
        """
        if any(architecture.layer(kind).is_identity for kind in LAYER_KINDS):
            return False
        return not self.long_skips or PREVIOUS in architecture.up.inputs_read

    @property
    def plain(self) -> Architecture:
        """A chain without any search: cells in a row, each an operation beside an identity, all levels joined."""
        convolution: Operation = "conv_3x3" if "conv_3x3" in self.operations else "sep_conv_3x3"
        chain: tuple[Operation, ...] = (convolution, convolution, "hdc_3x3")
        wanted = [name for name in chain if name in self.operations]
        wanted = wanted or [name for name in self.operations if name != "identity"]
        cells = []
        for index in range(self.cells):
            # The last cell is the dilated one, however many there are.
            operation = wanted[max(0, len(wanted) - self.cells + index)]
            source = PREVIOUS + (index if self.short_skips else 0)
            beside: Operation = "identity" if "identity" in self.operations else operation
            cells.append(Cell(nodes=(Node(input=source, operation=operation), Node(input=source, operation=beside))))
        layer = Layer(cells=tuple(cells))
        return Architecture(down=layer, bridge=layer, up=layer, skips=(self.long_skips,) * self.levels)

    def sample(self, generator: np.random.Generator) -> Architecture:
        """An architecture drawn evenly from all that the space allows."""
        while True:
            choices = [int(generator.integers(decision.choices)) for decision in self.decisions]
            architecture = self.decode(choices)
            if self.allows(architecture):
                return architecture

    def mutate(self, architecture: Architecture, generator: np.random.Generator) -> Architecture:
        """A neighbor: one decision made differently (regularized evolution, Real et al. 2019)."""
        decisions = self.decisions
        while True:
            choices = list(self.encode(architecture))
            place = int(generator.integers(len(choices)))
            others = [c for c in range(decisions[place].choices) if c != choices[place]]
            if not others:
                continue
            choices[place] = int(generator.choice(others))
            child = self.decode(choices)
            if self.allows(child):
                return child
