"""Errors that a user can do something about."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from napari_autosegnet.errors import UserError, first_problem, is_out_of_memory


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            True,
        ),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."), True),
        (RuntimeError("could not create a primitive"), True),
        (RuntimeError("could not execute a primitive"), True),
        (RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"), False),
    ],
)
def test_memory_that_is_out_is_known_by_its_words(error: Exception, memory: bool) -> None:
    assert is_out_of_memory(error) is memory


def test_an_error_is_one_line() -> None:
    assert str(UserError("cannot open a\nb.tif")) == "cannot open a b.tif"


def test_an_error_steers_no_terminal() -> None:
    assert str(UserError("cannot open \x1b]0;title\x07\u202etif.b")) == r"cannot open \x1b]0;title\x07\u202etif.b"


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    whole: Annotated[int, Field(ge=1, lt=9)] = 1
    number: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    flag: bool = True
    word: Literal["a", "b"] = "a"
    text: Annotated[str, Field(min_length=1, max_length=3)] = "x"
    several: Annotated[tuple[int, ...], Field(min_length=1, max_length=2)] = (1,)
    place: Path = Path()

    @field_validator("text")
    @classmethod
    def _no_z(cls, text: str) -> str:
        if text == "z":
            raise ValueError("no z, please")
        return text


class Outer(BaseModel):
    inner: Inner


@pytest.mark.parametrize(
    ("inner", "said"),
    [
        ({"whole": 0}, "at 'inner.whole': must be at least 1, not 0"),
        ({"whole": 9}, "at 'inner.whole': must be less than 9, not 9"),
        ({"whole": "many"}, "at 'inner.whole': must be a whole number, not many"),
        ({"whole": 1.5}, "at 'inner.whole': must be a whole number, not 1.5"),
        ({"number": 0}, "at 'inner.number': must be more than 0, not 0"),
        ({"number": 1}, "at 'inner.number': must be at most 0.5, not 1"),
        ({"number": math.nan}, "at 'inner.number': must be a finite number, not nan"),
        ({"number": None}, "at 'inner.number': must be a number, not nothing"),
        ({"flag": "perhaps"}, "at 'inner.flag': must be true or false, not perhaps"),
        ({"word": "c"}, "at 'inner.word': must be 'a' or 'b', not c"),
        ({"text": ""}, "at 'inner.text': must not be empty"),
        ({"text": "long" * 100}, "at 'inner.text': must have at most 3 characters, not " + "long" * 15 + " ..."),
        ({"text": "z"}, "at 'inner.text': no z, please"),
        ({"several": []}, "at 'inner.several': must have at least 1 entries"),
        ({"several": [1, 2, 3]}, "at 'inner.several': must have at most 2 entries"),
        ({"several": 5}, "at 'inner.several': must be a list, not 5"),
        ({"place": 5}, "at 'inner.place': must be a path, not 5"),
        ({"more": 1}, "at 'inner.more': is unknown"),
        (5, "at 'inner': must be an object of names and values, not 5"),
    ],
)
def test_problems_of_a_model_are_told_in_our_words(inner: Any, said: str) -> None:
    with pytest.raises(ValidationError) as raised:
        Outer.model_validate({"inner": inner})
    assert first_problem(raised.value) == said


def test_problems_of_the_whole() -> None:
    with pytest.raises(ValidationError) as raised:
        Outer.model_validate({})
    assert first_problem(raised.value) == "at 'inner': is missing"
    with pytest.raises(ValidationError) as raised:
        Outer.model_validate_json("{")
    assert first_problem(raised.value) == "at 'top': is not JSON"
