"""A curve in letters, for terminals."""

from collections.abc import Sequence

_EIGHTHS = " ▁▂▃▄▅▆▇█"


def resampled(at: Sequence[float], values: Sequence[float], count: int) -> list[float]:
    """`count` values evenly apart, from the first of `at` to the last, on the lines between the points; `at` rises."""
    if len(at) < 2:
        return [values[0]] * count if values else []
    first, last, segment, found = at[0], at[-1], 0, []
    for i in range(count):
        x = first + (last - first) * i / max(count - 1, 1)
        while segment < len(at) - 2 and at[segment + 1] < x:
            segment += 1
        left, right = at[segment], at[segment + 1]
        share = (x - left) / (right - left)
        found.append(values[segment] + share * (values[segment + 1] - values[segment]))
    return found


def area(heights: Sequence[float], *, rows: int) -> list[str]:
    """Columns up to their heights above zero, the highest over all `rows`, from the top row down; a letter a column."""
    top = max(heights, default=0.0)
    eighths = [round(8 * rows * height / top) if top > 0 else 0 for height in heights]
    return ["".join(_EIGHTHS[min(max(each - 8 * row, 0), 8)] for each in eighths) for row in reversed(range(rows))]
