"""Which images belong together, from a CSV table."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from napari_autosegnet.data.labeled_stacks import LabeledStack
from napari_autosegnet.data.name_matching import partners
from napari_autosegnet.data.readers.formats import without_ending
from napari_autosegnet.errors import UserError
from napari_autosegnet.files import refuse_pipe
from napari_autosegnet.plain_text import listed

_NAME_COLUMNS = ("file", "name", "filename", "image")
_PAGE_COLUMNS = ("crop_index", "page", "section", "index")


def section_groups(stacks: Sequence[LabeledStack], path: Path, column: str) -> list[list[str]]:
    """Group of every section of every stack, from a column of a CSV table.

    Rows are matched to sections by a column of file names (file, name, filename, image) when the
    sections have names; else by a column of page numbers (crop_index, page, section, index; rows where
    it is empty have no page); else by their order.

    Raises
    ------
    UserError
        When the table cannot be read, lacks the column, or fits the stacks in none of these ways.
    """
    refuse_pipe(path, "give a CSV table")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
            columns = list(reader.fieldnames or [])
    except OSError as error:
        raise UserError(f"cannot read the group table {path}: {error.strerror or error}; check the path") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"the group table {path} is not a CSV table in UTF-8; save it as one") from error
    if column not in columns:
        raise UserError(f"the table {path} has no column '{column}'; it has {', '.join(columns) or 'none'}")
    total = sum(stack.image.sections for stack in stacks)
    groups: list[list[str]] = []
    done = 0
    for stack in stacks:
        count = stack.image.sections
        matched = _by_name(stack, rows, columns, column) or (
            _by_page(count, rows, columns, column) if len(stacks) == 1 or count > 1 else None
        )
        if matched is None:
            _check_order_is_all(stack, rows, columns, path)
            if len(rows) not in (count, total):
                raise UserError(
                    f"the table {path} has {len(rows)} rows and {stack.image.display_name} has {count} "
                    "sections; give one row per section in order, or a column 'file' with their names"
                )
            matched = [row[column] for row in (rows if len(rows) == count else rows[done : done + count])]
        empty = [index for index, value in enumerate(matched) if not (value or "").strip()]
        if empty:
            raise UserError(f"the column '{column}' of {path} is empty for section {empty[0]}; fill it in")
        groups.append([value.strip() for value in matched])
        done += count
    return groups


def _by_name(stack: LabeledStack, rows: list[dict[str, str]], columns: list[str], column: str) -> list[str] | None:
    names, key = _names(stack), _name_column(columns)
    if not names or key is None:
        return None
    in_table = [without_ending((row[key] or "").strip().replace("\\", "/").rsplit("/", 1)[-1]) for row in rows]
    rows_of_names = partners([without_ending(name) for name in names], in_table)
    if all(index is None for index in rows_of_names):
        return None
    lonely = [name for name, index in zip(names, rows_of_names, strict=True) if index is None]
    if lonely:
        raise UserError(
            f"the column '{key}' of the group table has no row, or several, for {listed(lonely, 1)}; give each image "
            "one row"
        )
    return [rows[index][column] for index in rows_of_names if index is not None]


def _check_order_is_all(stack: LabeledStack, rows: list[dict[str, str]], columns: list[str], path: Path) -> None:
    """Refuse to go by the order of rows that name other images."""
    names, key = _names(stack), _name_column(columns)
    if names and key is not None and rows:
        raise UserError(
            f"the column '{key}' of {path} names no image of {stack.image.display_name} (it has "
            f"'{rows[0][key]}', the first image is '{names[0]}'); give their names there, or remove that column"
        )


def _names(stack: LabeledStack) -> tuple[str, ...]:
    """Names of the files of a stack's sections; empty where pages have none."""
    return stack.image.section_names or ((stack.image.name,) if stack.image.sections == 1 else ())


def _name_column(columns: Sequence[str]) -> str | None:
    return next((name for name in _NAME_COLUMNS if name in columns), None)


def _by_page(sections: int, rows: list[dict[str, str]], columns: list[str], column: str) -> list[str] | None:
    for key in _PAGE_COLUMNS:
        if key not in columns:
            continue
        paged = {(row[key] or "").strip(): row[column] for row in rows}
        paged.pop("", None)
        if set(paged) == {str(number) for number in range(sections)}:
            return [paged[str(number)] for number in range(sections)]
    return None
