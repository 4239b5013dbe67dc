"""`resnetd plan`: what a training would be, before anybody waits for it."""

from pathlib import Path
from typing import Annotated, Any

import typer

from resnetd.commands import output
from resnetd.commands.chart import area, resampled
from resnetd.commands.connection import connect
from resnetd.commands.files import save
from resnetd.commands.options import DEFAULT_SERVER, AsJson, Key, MaxSeconds, Server, parse_setting

_COLUMNS, _ROWS = 60, 6
_PARTS = ("start", "load", "train", "validate", "save", "test", "report")
_UNMEASURED = {
    "device_busy": "a job, or another plan, has the worker's device; plan again when it is free",
    "device_needed": "a job needed the worker while it was measured; plan again later",
    "refused": "the training would be refused; the problems say why",
    "out_of_memory": "there is too little memory for the smallest step",
    "too_slow": "the worker's machine is too busy to measure in time",
    "died": "the process that measured died; the worker's log says more",
}


def plan(
    dataset: Annotated[str, typer.Argument(help="The id of an imported dataset: ds_…")],
    *,
    recipe: Annotated[str, typer.Option(help="A recipe's name; `resnetd recipes` lists them.")],
    override: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a field of the recipe; repeatable.")
    ] = None,
    max_seconds: MaxSeconds = None,
    svg: Annotated[
        Path | None,
        typer.Option(metavar="FILE", show_default=False, help="Save the learning rate's curve here, as SVG."),
    ] = None,
    server: Server = DEFAULT_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Plan a training: its cost, its speed on the worker's device, and problems of the data. Nothing is queued."""
    overrides = dict(parse_setting(text, option="--set ") for text in override or [])
    with connect(server, key) as client:
        found = client.plan(dataset, recipe=recipe, overrides=overrides, max_seconds=max_seconds)
        if svg is not None:
            save(client.plan_curve(dataset, recipe=recipe, overrides=overrides), svg, option="--svg")
            output.note(f"Saved {svg}")
    if as_json:
        output.as_json(found)
    else:
        _show(found)


def _show(found: dict[str, Any]) -> None:
    recipe, images, measured = found["recipe"], found["images"], found["measured"]
    output.fields(
        {
            "network": recipe["network"],
            "parameters": f"{found['parameters']:,}",
            "FLOPs": f"{found['flops_per_image']:,} an image, forward",
            "images": f"{images['train']:,} train, {images['val']:,} val, {images['test']:,} test",
            "steps": f"{found['steps']:,}: {recipe['epochs']:,} epochs of {found['steps_per_epoch']:,}",
            "device": f"{found['device']['name']} ({found['device']['worker']})",
            "images/s": _speed(found),
            "takes": _time(found),
            "memory": _memory(found["memory"]),
            "batch": _batch(found, recipe["batch_size"]),
            "not measured": _UNMEASURED.get(measured["reason"], measured["reason"]),
        }
    )
    _curve(found["learning_rate"], recipe["epochs"])
    if found["problems"]:
        print()
        rows = [(each["severity"], each["code"], each["message"], each["hint"]) for each in found["problems"]]
        output.table(("problem", "code", "", "hint"), rows)


def _speed(found: dict[str, Any]) -> str | None:
    measured = found["measured"]
    if found["images_per_second"] is None:
        return None
    steps = f"{measured['steps']} step{'' if measured['steps'] == 1 else 's'} of {measured['batch_size']:,} images"
    return f"{found['images_per_second']:,.1f}, on {steps}{', by an earlier plan' if measured['cached'] else ''}"


def _time(found: dict[str, Any]) -> str | None:
    eta = found["eta"]
    if eta is None:
        return None
    parts = ", ".join(f"{name} {duration(eta[name])}" for name in _PARTS if name in eta)
    return f"{duration(eta['total'])} ({parts})"


def _memory(memory: dict[str, Any] | None) -> str | None:
    if memory is None or memory["peak_bytes"] is None:
        return None
    return f"{_gb(memory['peak_bytes'])} at the most ({memory['method']}), {_gb(memory['free_bytes'])} free"


def _batch(found: dict[str, Any], asked: int) -> str:
    largest = found["largest_batch"]
    if largest is None:
        return f"{asked:,}"
    return f"{asked:,}; the largest that fits is {largest['images']:,} ({largest['method']}, by {largest['bound_by']})"


def _curve(rates: dict[str, Any], epochs: int) -> None:
    if not rates["values"]:
        return
    top = f"{max(rates['values']):.4g}"
    lines = area(resampled(rates["steps"], rates["values"], _COLUMNS), rows=_ROWS)
    print("\nlearning rate")
    for number, line in enumerate(lines):
        print(f"{top if number == 0 else '0' if number == _ROWS - 1 else '':>8} ┤{line}")
    print(f"{'':>9}└{'─' * _COLUMNS}\n{'':>10}0{'epochs':^{_COLUMNS - 2 - len(str(epochs))}} {epochs}")


def duration(seconds: float) -> str:
    """`0.4 s`, `48 s`, `12 min`, `3 h 5 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
