"""The fields of a settings model one by one, for whoever makes options or forms of them."""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo


@dataclass(frozen=True)
class SettingField:
    """A field of a settings model or of one within it.

    Attributes
    ----------
    path : tuple of str
        Names of the models around it, and its own.
    info : FieldInfo
    kind : type or tuple
        Its type without None and pydantic's constraints; a tuple of types where it may be of several.
    is_optional : bool
        Whether it may be None.
    """

    path: tuple[str, ...]
    info: FieldInfo
    kind: Any
    is_optional: bool

    @property
    def name(self) -> str:
        return self.path[-1]

    @property
    def title(self) -> str:
        return title(self.name, self.info)

    @property
    def description(self) -> str:
        return self.info.description or self.title

    @property
    def is_advanced(self) -> bool:
        return bool(self.extra.get("advanced"))

    @property
    def extra(self) -> dict[str, Any]:
        """What stands beside the field for those who make something of it: ``advanced``, ``empty``, ``words``."""
        return extra(self.info)

    @property
    def choices(self) -> tuple[Any, ...]:
        """Words, or numbers, that it may be; empty where there are none to choose from."""
        kinds = self.kind if isinstance(self.kind, tuple) else (self.kind,)
        return tuple(word for kind in kinds if _is_literal(kind) for word in get_args(kind))

    @property
    def members(self) -> tuple[Any, ...]:
        """Types of the parts of a value of several parts, else nothing."""
        if get_origin(self.kind) is not tuple:
            return ()
        return tuple(_plain(member)[0] for member in get_args(self.kind) if member is not Ellipsis)

    def value_in(self, settings: BaseModel) -> Any:
        value: Any = settings
        for part in self.path:
            value = getattr(value, part)
        return value


def setting_fields(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[SettingField]:
    """All fields, those of models within it last; none for what the program computes."""
    nested = []
    for name, info in model.model_fields.items():
        kind, is_optional = _plain(info.annotation)
        if extra(info).get("computed"):
            continue
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            nested.append((name, kind))
        else:
            yield SettingField((*path, name), info, kind, is_optional)
    for name, kind in nested:
        yield from setting_fields(kind, (*path, name))


def title(name: str, info: FieldInfo) -> str:
    """Words for a field's name."""
    return info.title or name.replace("_", " ").capitalize()


def extra(info: FieldInfo) -> dict[str, Any]:
    return info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}


def _is_literal(kind: Any) -> bool:
    origin: Any = get_origin(kind)
    return origin is Literal


def _plain(annotation: Any) -> tuple[Any, bool]:
    """The annotation without ``None`` and pydantic's constraints, and whether None was in it."""
    if get_origin(annotation) is Annotated:
        return _plain(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        members = [_plain(member)[0] for member in get_args(annotation) if member is not types.NoneType]
        is_optional = len(members) < len(get_args(annotation))
        return members[0] if len(members) == 1 else tuple(members), is_optional
    return annotation, False
