"""Two drawings of an evaluation as SVG, written by hand: a confusion matrix and a reliability diagram."""

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

from worker.trainer.metrics import Bins

MOST_CLASSES = 200  # of a matrix: with more, a cell would be smaller than a pixel on most screens
_CELL, _SMALL_CELL, _FEW_CLASSES = 34, 7, 30
_LABEL_LETTERS = 18
_INK, _PALE, _BLUE = "#1b1f24", "#8a929c", (31, 90, 166)
_STYLE = f"text{{font:12px system-ui,sans-serif;fill:{_INK}}}.pale{{fill:{_PALE}}}.light{{fill:#fff}}"


def confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> str:
    """Counts (K, K), a row for each true class. Shade is the share of the row; counts are written where they fit."""
    count = len(classes)
    cell = _CELL if count <= _FEW_CLASSES else _SMALL_CELL
    labelled = count <= _FEW_CLASSES
    left = top = 150 if labelled else 40
    side = count * cell
    parts = [_text(left + side / 2, 18, "predicted", "pale", anchor="middle")]
    parts.append(_text(14, top + side / 2, "true", "pale", anchor="middle", turn=-90))
    for i, name in enumerate(classes if labelled else ()):
        middle = i * cell + cell / 2
        parts.append(_text(left - 8, top + middle + 4, _short(name), anchor="end"))
        parts.append(_text(left + middle + 4, top - 8, _short(name), turn=-90))
    for row, counts in enumerate(matrix):
        total = max(sum(counts), 1)
        for column, number in enumerate(counts):
            if number:
                share = number / total
                x, y = left + column * cell, top + row * cell
                hint = f"{classes[row]} → {classes[column]}: {number} ({share:.1%})"
                parts.append(_box((x, y), (cell - 1, cell - 1), _shade(share), hint))
                if labelled:
                    kind = "light" if share > 0.5 else ""
                    parts.append(_text(x + cell / 2 - 0.5, y + cell / 2 + 4, f"{number}", kind, anchor="middle"))
    parts.append(f'<rect x="{left}" y="{top}" width="{side}" height="{side}" fill="none" stroke="{_PALE}"/>')
    return _svg(left + side + 20, top + side + 20, "Confusion matrix", parts)


def reliability(bins: Bins, *, ece: float, uncalibrated: Bins, ece_uncalibrated: float) -> str:
    """Accuracy over confidence of both: bars at the model's temperature, a line at temperature 1."""
    left, top, side = 60, 40, 360
    width = side / len(bins.images)

    def x(confidence: float) -> float:
        return left + confidence * side

    def y(accuracy: float) -> float:
        return top + (1 - accuracy) * side

    parts = []
    for tick in range(6):
        value = tick / 5
        parts.append(f'<path d="M{left} {_n(y(value))}h{side}" stroke="{_PALE}" stroke-opacity=".3"/>')
        parts.append(_text(left - 8, y(value) + 4, f"{value:.0%}", "pale", anchor="end"))
        parts.append(_text(x(value), top + side + 18, f"{value:.0%}", "pale", anchor="middle"))
    for i, count in enumerate(bins.images):
        if count:
            accuracy, confidence = bins.correct[i] / count, bins.confidence[i] / count
            hint = f"{count} images, confidence {confidence:.1%}, right {accuracy:.1%}"
            shade = _shade(0.35 + 0.65 * math.sqrt(count / bins.images.max()))
            parts.append(_box((left + i * width + 1, y(accuracy)), (width - 2, accuracy * side), shade, hint))
    parts.append(f'<path d="M{left} {top + side}L{left + side} {top}" stroke="{_PALE}" stroke-dasharray="4 4"/>')
    points = [
        f"{_n(x(float(uncalibrated.confidence[i] / count)))} {_n(y(float(uncalibrated.correct[i] / count)))}"
        for i, count in enumerate(uncalibrated.images)
        if count
    ]
    parts.append(f'<path d="M{"L".join(points)}" fill="none" stroke="#c2410c" stroke-width="2"/>')
    parts.append(_text(left, 18, f"bars: as served, ECE {ece:.4f}; line: uncalibrated, ECE {ece_uncalibrated:.4f}"))
    parts.append(_text(left + side / 2, top + side + 38, "confidence", "pale", anchor="middle"))
    parts.append(_text(16, top + side / 2, "right answers", "pale", anchor="middle", turn=-90))
    return _svg(left + side + 30, top + side + 50, "Reliability diagram", parts)


def _svg(width: float, height: float, title: str, parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_n(width)} {_n(height)}" role="img">'
    background = '<rect width="100%" height="100%" fill="#fff"/>'
    return "\n".join([head, f"<title>{title}</title>", f"<style>{_STYLE}</style>", background, *parts, "</svg>", ""])


def _box(corner: tuple[float, float], size: tuple[float, float], fill: str, hint: str) -> str:
    place = f'x="{_n(corner[0])}" y="{_n(corner[1])}" width="{_n(size[0])}" height="{_n(size[1])}"'
    return f'<rect {place} fill="{fill}"><title>{_clean(hint)}</title></rect>'


def _text(x: float, y: float, text: str, kind: str = "", *, anchor: str = "start", turn: int = 0) -> str:
    style = (f' class="{kind}"' if kind else "") + (f' text-anchor="{anchor}"' if anchor != "start" else "")
    turned = f' transform="rotate({turn} {_n(x)} {_n(y)})"' if turn else ""
    return f'<text x="{_n(x)}" y="{_n(y)}"{style}{turned}>{_clean(text)}</text>'


def _shade(share: float) -> str:
    """White at 0, blue at 1."""
    return "#" + "".join(f"{round(255 + (full - 255) * share):02x}" for full in _BLUE)


def _short(name: str) -> str:
    return name if len(name) <= _LABEL_LETTERS else name[: _LABEL_LETTERS - 1] + "…"


def _clean(text: str) -> str:
    """Class names come from archives: XML forbids most control characters even escaped."""
    return escape("".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text))


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
