"""A model version's card in Markdown: what it is, how good it is, and where it came from. For people."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from models.manifest import Lineage, Manifest

_CLASSES_SHOWN = 100
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>()#+!|~])")
_FIGURES = (
    ("top1", "Top-1 accuracy"),
    ("top5", "Top-5 accuracy"),
    ("log_loss", "Log loss"),
    ("ece", "Expected calibration error"),
    ("ece_uncalibrated", "Expected calibration error before the temperature"),
)


def card(name: str, version: int, manifest: Manifest) -> str:
    """The card. Names that came with a dataset or a file are shown as plain text, whatever they hold."""
    return "\n".join([*_head(name, version, manifest), *_use(name, version), *_figures(manifest), *_lineage(manifest)])


def _head(name: str, version: int, manifest: Manifest) -> Iterator[str]:
    pre = manifest.preprocessing
    yield f"# {_plain(name)}, version {version}\n"
    yield f"`{manifest.network.name}`, {manifest.parameters:,} parameters, {len(manifest.classes)} classes.\n"
    yield "## Input\n"
    yield (
        f"Images become {pre.channels} channel{'s' if pre.channels > 1 else ''}; the shorter side is resized to "
        f"{pre.resize} pixels ({pre.interpolation}, antialiased), the centre {pre.width} × {pre.height} is cut out, "
        f"and each channel is `(x / 255 - mean) / std` with mean {_numbers(pre.mean)} and std {_numbers(pre.std)}.\n"
    )
    if manifest.test_time_flip:
        yield "The network sees each image and its mirror image; logits are the mean of the two.\n"
    yield "## Classes\n"
    shown = ", ".join(map(_plain, manifest.classes[:_CLASSES_SHOWN]))
    more = len(manifest.classes) - _CLASSES_SHOWN
    yield f"{shown}{f', and {more:,} more' if more > 0 else ''}.\n"


def _use(name: str, version: int) -> Iterator[str]:
    yield "## Use\n"
    yield f"    curl -T image.jpg localhost:8000/v1/models/{name}@{version}:classify\n"


def _figures(manifest: Manifest) -> Iterator[str]:
    metrics = manifest.metrics
    yield "## Evaluation\n"
    found = [(text, metrics[key]) for key, text in _FIGURES if isinstance(metrics.get(key), int | float)]
    if not found:
        yield "It was not evaluated here. An `evaluate` job measures it on any dataset with its classes.\n"
        return
    on = f"On the split `{_code(metrics['split'])}`" if metrics.get("split") else "On held-out images"
    images = metrics.get("total")
    yield f"{on}{f', {images:,} images' if isinstance(images, int) else ''}:\n"
    yield "| Figure | Value |\n|---|---|"
    yield from (f"| {text} | {value:.4f} |" for text, value in found)
    if manifest.calibration is not None:
        yield f"| Temperature | {manifest.calibration.temperature:.4f} |"
    yield ""
    yield from _classes(metrics.get("per_class"))


def _classes(rows: object) -> Iterator[str]:
    if not isinstance(rows, list) or not 0 < len(rows) <= _CLASSES_SHOWN:
        return
    if not all(isinstance(row, Mapping) for row in rows):
        return
    yield "### By class\n"
    yield "| Class | Precision | Recall | F1 | Images |\n|---|---|---|---|---|"
    for row in rows:
        figures = (_figure(row.get(key)) for key in ("precision", "recall", "f1"))
        yield f"| {_plain(str(row.get('label', '')))} | {' | '.join(figures)} | {_figure(row.get('support'))} |"
    yield ""


def _lineage(manifest: Manifest) -> Iterator[str]:
    lineage = manifest.lineage
    yield "## Where it came from\n"
    yield from (f"- {name}: {value}" for name, value in _origin(lineage) if value)
    yield f"- Weights, SHA-256: `{manifest.weights_sha256}`\n"


def _origin(lineage: Lineage) -> Iterator[tuple[str, str]]:
    yield "Job", f"`{_code(lineage.job)}`"
    yield "Made", lineage.created_at.strftime("%Y-%m-%d %H:%M UTC")
    if lineage.origin is not None:
        named = f"{_plain(lineage.origin.filename)}, " if lineage.origin.filename else ""
        yield "Adopted from", f"{named}{lineage.origin.format}, SHA-256 `{lineage.origin.sha256}`"
    if lineage.dataset:
        yield (
            "Dataset",
            f"{_plain(lineage.dataset_name)} (`{_code(lineage.dataset)}`, `{_code(lineage.dataset_digest)}`)",
        )
        yield "Recipe", f"`{_code(lineage.recipe)}`, seed {lineage.seed}"
    yield "Code", _plain(lineage.code_version)


def _plain(text: str) -> str:
    """Text of somebody else's, without any meaning in Markdown or HTML."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split())).replace("&", "&amp;")


def _code(text: Any) -> str:  # noqa: ANN401 - a metric may hold anything
    return " ".join(str(text).replace("`", "'").split())


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _figure(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return str(value) if isinstance(value, int) else ""
