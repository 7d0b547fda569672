"""The best architecture so far, small enough for a dock; a click opens the full drawing.

The small one is painted by Qt. The full one is `figures.draw_architecture`, drawn in a thread.
"""

from __future__ import annotations

import math
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import ValidationError
from qtpy.QtCore import QPointF, QRectF, QSize, QSizeF, Qt
from qtpy.QtGui import QColor, QFont, QKeyEvent, QMouseEvent, QPainter, QPaintEvent, QPalette, QPen, QPixmap
from qtpy.QtWidgets import QDialog, QSizePolicy, QWidget

from napari_autosegnet.architecture import (
    LAYER_INPUTS,
    LAYER_KINDS,
    OPERATIONS,
    Architecture,
    Cell,
    LayerKind,
)
from napari_autosegnet.events import ArchitectureFound
from napari_autosegnet.figures import KIND_COLORS, SOURCE_COLORS, operation_style
from napari_autosegnet.widgets.forms.background import Background
from napari_autosegnet.widgets.forms.form_rows import named

_INK = QColor("#2b2f36")
_CELL_HEIGHT = 44.0
_HEAD = 20.0
_GAP = 6.0
_LEGEND_ROW = 17.0
_FOOT = _LEGEND_ROW * math.ceil(len(OPERATIONS) / 2)
_SKIPS = 20.0


class ArchitectureView(QWidget):
    """Three columns (down, bridge, up), a box for each cell with its two operations and what they read."""

    def __init__(self) -> None:
        super().__init__()
        self.architecture: Architecture | None = None
        self.score: float | None = None
        self.final = False
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
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
        self.score, self.final = score, final
        if architecture != self.architecture:
            self.architecture = architecture
            self.updateGeometry()
        self.show()
        self.update()

    def clear(self) -> None:
        """Show nothing."""
        self.architecture = None
        self.hide()

    @property
    def _cells(self) -> int:
        assert self.architecture is not None
        return max(len(self.architecture.layer(kind).cells) for kind in LAYER_KINDS)

    def sizeHint(self) -> QSize:  # noqa: N802
        """As wide as there is room, as high as the cells need."""
        if self.architecture is None:
            return QSize(300, 0)
        height = 2 * _HEAD + self._cells * (_CELL_HEIGHT + _GAP) + _SKIPS + _FOOT
        return QSize(300, round(height))

    def minimumSizeHint(self) -> QSize:  # noqa: N802
        """Narrow docks cut nothing off."""
        return QSize(220, self.sizeHint().height())

    def paintEvent(self, event: QPaintEvent | None) -> None:  # noqa: N802
        """Paint title, columns, long skips, legend from top to bottom."""
        if self.architecture is None:
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        ink = self.palette().color(QPalette.ColorRole.WindowText)
        width = float(self.width())
        title = "Network found" if self.final else "Best network so far"
        # The final score was measured otherwise than those before: it would look like a step back.
        if self.score is not None and not self.final:
            title += f", quality {self.score:.3f}"
        _text(painter, QRectF(0, 0, width, _HEAD), title, ink, bold=True, align=Qt.AlignmentFlag.AlignLeft)
        column = (width - 2 * _GAP) / 3
        for place, kind in enumerate(LAYER_KINDS):
            self._paint_layer(painter, kind, place * (column + _GAP), column)
        y = 2 * _HEAD + self._cells * (_CELL_HEIGHT + _GAP)
        self._paint_skips(painter, QRectF(0, y, width, _SKIPS), ink)
        _paint_legend(painter, QRectF(0, y + _SKIPS, width, _FOOT), ink)
        if self.hasFocus():
            painter.setPen(QPen(ink, 1, Qt.PenStyle.DotLine))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawRect(self.rect().adjusted(0, 0, -1, -1))
        painter.end()

    def _paint_layer(self, painter: QPainter, kind: LayerKind, left: float, width: float) -> None:
        assert self.architecture is not None
        layer = self.architecture.layer(kind)
        head = QRectF(left, _HEAD + 1, width, _HEAD - 4)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(KIND_COLORS[kind]))
        painter.drawRoundedRect(head, 3, 3)
        _text(painter, head, kind, QColor("white"), bold=True)
        for index, cell in enumerate(layer.cells):
            top = 2 * _HEAD + index * (_CELL_HEIGHT + _GAP)
            _paint_cell(painter, QRectF(left, top, width, _CELL_HEIGHT), index, cell, index in layer.loose_ends)

    def _paint_skips(self, painter: QPainter, place: QRectF, ink: QColor) -> None:
        assert self.architecture is not None
        skips = self.architecture.skips
        joined = sum(skips)
        words = "no long skip" if not joined else f"{joined} of {len(skips)} long skips"
        _text(painter, QRectF(place.left(), place.top(), 110, place.height()), words, ink, align=_LEFT, size=8)
        # From the image's resolution on the left to the bridge on the right.
        step = min(44.0, (place.width() - 116) / len(skips))
        for number, skip in enumerate(reversed(skips)):
            x = place.left() + 114 + number * step
            y = place.center().y()
            color = QColor(KIND_COLORS["hdc"]) if skip else QColor("#8a9099")
            pen = QPen(color, 2 if skip else 1, Qt.PenStyle.SolidLine if skip else Qt.PenStyle.DotLine)
            painter.setPen(pen)
            painter.drawLine(QPointF(x + 5, y), QPointF(x + step - 9, y))
            painter.setPen(Qt.PenStyle.NoPen)
            for end, end_color in ((x + 3, KIND_COLORS["down"]), (x + step - 7, KIND_COLORS["up"])):
                painter.setBrush(QColor(end_color))
                painter.drawEllipse(QPointF(end, y), 3.5, 3.5)

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
        self.picture = QPixmap()
        self.picture.loadFromData(content)
        size, screen = self.picture.size(), self.screen()
        room = QSize(1200, 900) if screen is None else screen.availableSize() * 0.85
        if size.width() > room.width() or size.height() > room.height():
            size.scale(room, Qt.AspectRatioMode.KeepAspectRatio)
        self.resize(size)

    def paintEvent(self, event: QPaintEvent | None) -> None:  # noqa: N802
        """Paint the picture in the middle."""
        painter = QPainter(self)
        painter.fillRect(self.rect(), QColor("white"))
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        place = QRectF(
            QPointF(0, 0), QSizeF(self.picture.size().scaled(self.size(), Qt.AspectRatioMode.KeepAspectRatio))
        )
        place.moveCenter(QRectF(self.rect()).center())
        painter.drawPixmap(place, self.picture, QRectF(self.picture.rect()))
        painter.end()


_LEFT = Qt.AlignmentFlag.AlignLeft


def _paint_cell(painter: QPainter, place: QRectF, index: int, cell: Cell, is_output: bool) -> None:
    """Two operations side by side, what each reads below it, and the cell's own name."""
    painter.setBrush(QColor("#fafbfc"))
    painter.setPen(QPen(QColor("#c9ced6"), 1))
    painter.drawRoundedRect(place.adjusted(0.5, 0.5, -0.5, -0.5), 4, 4)
    tag = 20.0
    chip = (place.width() - tag - 8) / 2
    color = QColor("#6c7480") if is_output else QColor(SOURCE_COLORS[(LAYER_INPUTS + index) % len(SOURCE_COLORS)])
    _text(
        painter, QRectF(place.left() + 3, place.top(), tag, place.height()), f"c{index + 1}", color, bold=True, size=8
    )
    for number, node in enumerate(cell.nodes):
        left = place.left() + tag + 2 + number * (chip + 3)
        style = operation_style(node.operation)
        box = QRectF(left, place.top() + 4, chip, 19)
        painter.setBrush(QColor(style.fill))
        painter.setPen(QPen(QColor(style.edge), 1.2))
        painter.drawRoundedRect(box, 3, 3)
        _text(painter, box, style.short_name, _INK, size=9)
        source = ("in 2", "in 1")[node.input] if node.input < LAYER_INPUTS else f"c{node.input - LAYER_INPUTS + 1}"
        below = QRectF(left, place.top() + 25, chip, 15)
        # In a narrow dock the arrow would push the source out of sight.
        _text(
            painter,
            below,
            f"↑ {source}" if chip >= 40 else source,
            QColor(SOURCE_COLORS[node.input % len(SOURCE_COLORS)]),
            size=8,
        )


def _paint_legend(painter: QPainter, place: QRectF, ink: QColor) -> None:
    half = place.width() / 2
    for number, operation in enumerate(OPERATIONS):
        x = place.left() + (number % 2) * half
        y = place.top() + (number // 2) * _LEGEND_ROW
        style = operation_style(operation)
        box = QRectF(x + 1, y + 2, 28, 13)
        painter.setBrush(QColor(style.fill))
        painter.setPen(QPen(QColor(style.edge), 1))
        painter.drawRoundedRect(box, 3, 3)
        _text(painter, box, style.short_name, _INK, size=7)
        _text(painter, QRectF(x + 34, y, half - 36, _LEGEND_ROW), style.short_meaning, ink, align=_LEFT, size=8)


def _text(
    painter: QPainter,
    place: QRectF,
    text: str,
    color: QColor,
    *,
    bold: bool = False,
    size: int = 9,
    align: Qt.AlignmentFlag = Qt.AlignmentFlag.AlignHCenter,
) -> None:
    font = QFont(painter.font())
    font.setPixelSize(size + 3)
    font.setBold(bold)
    painter.setFont(font)
    painter.setPen(color)
    painter.drawText(place, Qt.AlignmentFlag.AlignVCenter | align | Qt.TextFlag.TextSingleLine, text)
