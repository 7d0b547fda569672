"""Ways to damage files: strategies of hypothesis."""

from __future__ import annotations

import copy
import json
import os
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

#: For tests that read a file per example; FUZZ_EXAMPLES=2000 in the environment looks deeper.
FILES = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "40")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

_numbers = st.one_of(
    st.integers(-3, 3),
    st.integers(),
    st.sampled_from([2**31, 2**63, 10**400, -(2**70), 1e308, float("nan"), float("inf"), -0.0, 1.5]),
)
values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), _numbers, st.text(max_size=8), st.sampled_from(["", "/", "..", "\x00", "é\ud800"])
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    if isinstance(value, dict):
        for key, inner in value.items():
            found += _places(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            found += _places(inner, (*path, index))
    return found


@st.composite
def damaged_json(draw: st.DrawFn, valid: Any) -> bytes:
    """A JSON value with one to three of its parts replaced, removed or added to, or text that is no JSON."""
    content = copy.deepcopy(valid)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(_places(content)))
        if not path:
            if draw(st.integers(0, 9)) == 0:
                content = draw(values)
            continue
        place = content
        for part in path[:-1]:
            place = place[part]
        match draw(st.sampled_from(["replace", "replace", "remove", "add"])):
            case "replace":
                place[path[-1]] = draw(values)
            case "remove":
                del place[path[-1]]
            case _ if isinstance(place, dict):
                place[draw(st.text(max_size=5))] = draw(values)
            case _:
                place.append(draw(values))
    return damaged_bytes(draw, json.dumps(content).encode("utf-8", "surrogatepass"), often=False)


def damaged_bytes(draw: st.DrawFn, content: bytes, *, often: bool = True) -> bytes:
    """Content with a piece overwritten, cut out, doubled or cut off; left alone four times of five if not ``often``."""
    if not often and draw(st.integers(0, 4)):
        return content
    if not content:
        return draw(st.binary(max_size=20))
    start = draw(st.integers(0, len(content) - 1))
    end = min(len(content), start + draw(st.integers(1, 40)))
    match draw(st.sampled_from(["overwrite", "cut", "double", "truncate", "noise"])):
        case "overwrite":
            return content[:start] + draw(st.binary(min_size=end - start, max_size=end - start)) + content[end:]
        case "cut":
            return content[:start] + content[end:]
        case "double":
            return content[:end] + content[start:]
        case "truncate":
            return content[:start]
        case _:
            return draw(st.binary(max_size=60))


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes that were overwritten, cut, doubled or replaced somewhere."""
    return damaged_bytes(draw, content)
