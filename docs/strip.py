"""A strip of pictures for the documentation, with a line to each."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

_GAP = 6


class Strip:
    """The pictures, all of one size.

    Parameters
    ----------
    font_size : int
        Of the lines, in pixels.
    """

    def __init__(self, font_size: int = 15) -> None:
        self._font = ImageFont.truetype("DejaVuSans.ttf", font_size)
        self._pictures: list[Image.Image] = []

    def add(self, picture: Image.Image, line: str) -> None:
        """Append a picture with a line below it."""
        framed = Image.new("RGB", (picture.width, picture.height + round(self._font.size) + 11), "white")
        framed.paste(picture)
        ImageDraw.Draw(framed).text((4, picture.height + 4), line, "black", font=self._font)
        self._pictures.append(framed)

    def save(self, path: Path, columns: int, colors: int | None = None) -> None:
        """Write the sheet, in a palette of some colors where gray values need not be smooth."""
        width, height = self._pictures[0].size
        rows = -(-len(self._pictures) // columns)
        sheet = Image.new("RGB", (columns * (width + _GAP) - _GAP, rows * height), "white")
        for number, picture in enumerate(self._pictures):
            row, column = divmod(number, columns)
            sheet.paste(picture, (column * (width + _GAP), row * height))
        if colors is not None:
            sheet = sheet.quantize(colors, kmeans=1, dither=Image.Dither.NONE)
        sheet.save(path, optimize=True)
        print(path)
