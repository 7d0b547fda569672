"""The best architecture so far as a table, small enough for a dock; a click opens the full drawing."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import ValidationError
from qtpy.QtCore import Qt
from qtpy.QtGui import QKeyEvent, QMouseEvent, QPixmap, QResizeEvent
from qtpy.QtWidgets import QDialog, QLabel, QWidget

from napari_autosegnet.architecture import LAYER_INPUTS, LAYER_KINDS, OPERATIONS, Architecture, Cell, Operation
from napari_autosegnet.events import ArchitectureFound
from napari_autosegnet.figures import KIND_COLORS, SOURCE_COLORS, operation_style
from napari_autosegnet.widgets.forms.background import Background
from napari_autosegnet.widgets.forms.form_rows import named

_PAPER, _INK, _FAINT = "#fafbfc", "#2b2f36", "#8a9099"


class ArchitectureView(QLabel):
    """Three columns (down, bridge, up), a box for each cell with its two operations and what they read."""

    def __init__(self) -> None:
        super().__init__()
        self.architecture: Architecture | None = None
        self.score: float | None = None
        self.final = False
        self.setTextFormat(Qt.TextFormat.RichText)
        self.setWordWrap(True)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setStyleSheet(
            "QLabel {font-size: 11px; border: 1px dotted transparent} QLabel:focus {border-color: palette(window-text)}"
        )
        named(
            self,
            "Drawing of the best network so far",
            "The best network so far. Every box is a cell: its two operations are computed and added.\n"
            "Below an operation stands what it reads: in 1 and in 2 are the two layers before, "
            "c1, c2 the cells of the same layer.\nClick, or press Return, for the full drawing.",
        )
        self._background = Background(self)
        self.hide()

    def release(self) -> None:
        """Let go of the thread."""
        self._background.close()

    def add(self, event: ArchitectureFound) -> None:
        """Show the architecture of an event, if it is one."""
        with suppress(ValidationError):
            architecture = Architecture.model_validate(event.architecture)
            self.show_architecture(architecture, event.score, final=event.final)

    def show_architecture(self, architecture: Architecture, score: float | None = None, *, final: bool = True) -> None:
        """Show an architecture and what it reached."""
        self.architecture, self.score, self.final = architecture, score, final
        title = "Network found" if final else "Best network so far"
        # The final score was measured otherwise than those before: it would look like a step back.
        if score is not None and not final:
            title += f", quality {score:.3f}"
        self.setText(f"<b>{title}</b>{_layers(architecture)}{_skips(architecture)}{_legend()}")
        self.show()

    def clear(self) -> None:
        """Show nothing."""
        self.architecture = None
        super().clear()
        self.hide()

    def mouseReleaseEvent(self, event: QMouseEvent | None) -> None:  # noqa: N802
        """Open the full drawing."""
        if event is not None and event.button() == Qt.MouseButton.LeftButton:
            self.open_drawing()

    def keyPressEvent(self, event: QKeyEvent | None) -> None:  # noqa: N802
        """Return and Space open the full drawing, as a click does."""
        if event is not None and event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_Space):
            self.open_drawing()
        else:
            super().keyPressEvent(event)

    def open_drawing(self) -> None:
        """Draw the architecture in full in a thread, and show it in a window when it is done."""
        if self.architecture is not None and not self._background.is_busy:
            self._background.call(
                partial(_drawn, self.architecture), lambda content: ArchitectureDialog(content, self).show()
            )


def _drawn(architecture: Architecture) -> bytes:
    """A picture of an architecture in full."""
    from napari_autosegnet.figures import draw_architecture

    with TemporaryDirectory() as folder:
        path = Path(folder) / "architecture.png"
        draw_architecture(architecture, path)
        return path.read_bytes()


class ArchitectureDialog(QDialog):
    """The full drawing in a window of its own, as large as the window.

    Parameters
    ----------
    content : bytes
        A picture in a format that Qt reads.
    parent : QWidget, optional
    """

    def __init__(self, content: bytes, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle("Architecture")
        self.setStyleSheet("background: white")
        self.picture = QPixmap()
        self.picture.loadFromData(content)
        self._label = QLabel(self)
        self._label.setAlignment(Qt.AlignmentFlag.AlignCenter)
        size, screen = self.picture.size(), self.screen()
        room = size if screen is None else size.boundedTo(screen.availableSize() * 0.85)
        self.resize(size.scaled(room, Qt.AspectRatioMode.KeepAspectRatio))

    def resizeEvent(self, event: QResizeEvent | None) -> None:  # noqa: N802
        """Fit the picture to the window."""
        self._label.resize(self.size())
        smooth = Qt.TransformationMode.SmoothTransformation
        self._label.setPixmap(self.picture.scaled(self.size(), Qt.AspectRatioMode.KeepAspectRatio, smooth))


def _layers(architecture: Architecture) -> str:
    """A column for each layer: its head, then its cells."""
    layers = [architecture.layer(kind) for kind in LAYER_KINDS]
    heads = [
        f'<td width="33%" align="center" bgcolor="{KIND_COLORS[kind]}" style="color: white"><b>{kind}</b></td>'
        for kind in LAYER_KINDS
    ]
    rows = ["".join(heads)]
    for index in range(max(len(layer.cells) for layer in layers)):
        cells = (
            _cell(index, layer.cells[index], index in layer.loose_ends) if index < len(layer.cells) else ""
            for layer in layers
        )
        rows.append("".join(f'<td bgcolor="{_PAPER}">{cell}</td>' for cell in cells))
    return _table(rows, 'width="100%" cellspacing="2"')


def _cell(index: int, cell: Cell, is_output: bool) -> str:
    """The cell's own name, and its operations side by side with what each reads."""
    color = _FAINT if is_output else _source_color(LAYER_INPUTS + index)
    columns = [f'<td width="16%" valign="middle">{_colored(f"c{index + 1}", color)}</td>']
    for node in cell.nodes:
        source = (
            f"c{node.input - LAYER_INPUTS + 1}"
            if node.input >= LAYER_INPUTS
            else f"in&nbsp;{LAYER_INPUTS - node.input}"
        )
        columns.append(_chip(node.operation, f"<br>{_colored(source, _source_color(node.input))}", "42%"))
    return _table(["".join(columns)], 'width="100%" cellspacing="1"')


def _skips(architecture: Architecture) -> str:
    """The long skips, from the image's resolution on the left to the bridge on the right."""
    skips = architecture.skips
    words = f"{sum(skips)} of {len(skips)} long skips" if any(skips) else "no long skip"
    down, up = (_colored("●", KIND_COLORS[kind]) for kind in ("down", "up"))
    lines = (_colored("━━", KIND_COLORS["hdc"]) if skip else _colored("┄┄", _FAINT) for skip in reversed(skips))
    return f"{words} &nbsp; " + " ".join(f"{down}{line}{up}" for line in lines)


def _legend() -> str:
    entries = [_chip(name) + f"<td>{operation_style(name).short_meaning} &nbsp; </td>" for name in OPERATIONS]
    return _table(["".join(entries[first : first + 2]) for first in range(0, len(entries), 2)], 'cellspacing="3"')


def _chip(operation: Operation, below: str = "", width: str = "28") -> str:
    style = operation_style(operation)
    look = f"color: {_INK}; border: 1px solid {style.edge}"
    return f'<td width="{width}" align="center" bgcolor="{style.fill}" style="{look}">{style.short_name}{below}</td>'


def _source_color(source: int) -> str:
    return SOURCE_COLORS[source % len(SOURCE_COLORS)]


def _colored(text: str, color: str) -> str:
    return f'<span style="color: {color}">{text}</span>'


def _table(rows: list[str], attributes: str) -> str:
    return f"<table {attributes}>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"
