"""Architectures and search spaces."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_autosegnet.architecture import OPERATIONS, PAPER_OPERATIONS, Architecture, Cell, Layer, Node, SearchSpace
from napari_autosegnet.errors import UserError

SEEDS = st.integers(0, 2**32 - 1)
SPACES = st.builds(
    SearchSpace,
    operations=st.sampled_from(
        [OPERATIONS, PAPER_OPERATIONS, OPERATIONS[:2], ("sep_conv_3x3", "sep_conv_5x5", "identity")]
    ),
    cells=st.integers(1, 5),
    levels=st.integers(1, 6),
    short_skips=st.booleans(),
    long_skips=st.booleans(),
)


def layer(*inputs: int, operation: str = "sep_conv_3x3") -> Layer:
    nodes = [Node(operation=operation, input=i) for i in inputs]
    return Layer(cells=tuple(Cell(nodes=(nodes[i], nodes[i + 1])) for i in range(0, len(nodes), 2)))


@given(SPACES, SEEDS)
def test_json_round_trip(space: SearchSpace, seed: int) -> None:
    architecture = space.sample(np.random.default_rng(seed))
    again = Architecture.from_json(architecture.to_json())
    assert again == architecture
    assert hash(again) == hash(architecture)
    assert space.decode(space.encode(again)) == architecture


@given(SPACES, SEEDS)
def test_samples_and_mutants_lie_in_the_space(space: SearchSpace, seed: int) -> None:
    generator = np.random.default_rng(seed)
    parent = space.sample(generator)
    child = space.mutate(parent, generator)
    for architecture in (parent, child):
        assert space.allows(architecture)
        assert all(node.operation in space.operations for node in architecture.nodes)
        if not space.short_skips:
            assert all(node.input < 2 for node in architecture.nodes)
        if not space.long_skips:
            assert not any(architecture.skips)
    different = [a != b for a, b in zip(space.encode(parent), space.encode(child), strict=True)]
    assert sum(different) == 1


@given(SPACES)
def test_the_plain_chain_lies_in_every_space(space: SearchSpace) -> None:
    plain = space.plain
    assert space.allows(plain) and space.decode(space.encode(plain)) == plain
    assert plain.skips == (space.long_skips,) * space.levels


def test_the_plain_chain_is_a_row_of_cells() -> None:
    layers = [SearchSpace(levels=2).plain.layer(kind) for kind in ("down", "bridge", "up")]
    assert layers[0] == layers[1] == layers[2]
    assert [cell.nodes[0].operation for cell in layers[0].cells] == ["conv_3x3", "conv_3x3", "hdc_3x3"]
    papers = SearchSpace(levels=2, operations=PAPER_OPERATIONS).plain.down
    assert [cell.nodes[0].operation for cell in papers.cells] == ["sep_conv_3x3", "sep_conv_3x3", "hdc_3x3"]
    assert [cell.nodes[0].input for cell in layers[0].cells] == [1, 2, 3]
    assert layers[0].loose_ends == (2,)


def test_loose_ends_are_the_cells_that_nobody_reads() -> None:
    assert layer(0, 1, 1, 0, 0, 0).loose_ends == (0, 1, 2)
    assert layer(0, 1, 2, 0, 3, 3).loose_ends == (2,)
    assert layer(0, 1, 2, 2, 1, 1).loose_ends == (1, 2)
    assert layer(1, 1, 2, 2, 1, 1).inputs_read == {1}


def test_a_cell_cannot_read_itself_or_later_ones() -> None:
    with pytest.raises(ValueError, match="not computed before"):
        layer(0, 2, 0, 0)


def test_deeper_networks_repeat_the_outermost_skip() -> None:
    one = layer(0, 1, 1, 0, 0, 0)
    architecture = Architecture(down=one, bridge=one, up=one, skips=(False, True))
    assert [architecture.skip_at(level) for level in range(5)] == [False, True, True, True, True]


def test_identity_alone_is_not_sampled() -> None:
    space = SearchSpace(operations=("identity", "sep_conv_3x3"), cells=1)
    generator = np.random.default_rng(0)
    for _ in range(200):
        architecture = space.sample(generator)
        assert not any(architecture.layer(kind).is_identity for kind in ("down", "bridge", "up"))
    with pytest.raises(ValueError, match="other than identity"):
        SearchSpace(operations=("identity",))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(version=99), "version 99"),
        (lambda c: c.pop("format"), "not an architecture"),
        (lambda c: c["down"]["cells"][0]["nodes"][0].update(operation="conv_7x7"), "damaged at 'down.cells.0"),
        (lambda c: c.update(skips=[]), "damaged at 'skips'"),
        (lambda c: c.update(surprise=1), "damaged at 'surprise'"),
    ],
)
def test_bad_files_give_one_clear_line(change: object, message: str) -> None:
    content = json.loads(SearchSpace().sample(np.random.default_rng(1)).to_json())
    change(content)  # type: ignore[operator]
    with pytest.raises(UserError, match=message) as raised:
        Architecture.from_json(json.dumps(content), "x.json")
    assert "\n" not in str(raised.value)


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    with pytest.raises(UserError):
        Architecture.from_json(text)
