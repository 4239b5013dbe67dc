"""Numbers that are none: in the loss, in a gradient, in a weight."""

import itertools
from collections.abc import Callable
from typing import Any

import torch
import torch._dynamo  # an optimizer's first step imports it: seconds for each process, and once for all that are forked

from benchmarks.resume.run import Run
from models import checkpoint
from store.layout import Layout
from worker.job_process import DONE
from worker.trainer import optimizer, steps


def not_numbers(layout: Layout, undisturbed: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """NaN in the loss, in a gradient, in a weight, at the second step of a claim that saves after each."""
    ends = {}
    for where, spoil in (("loss", _spoil_loss), ("gradient", _spoil_gradient), ("weight", _spoil_weight)):
        job = Run(layout, f"nan-{where}", workers=0, **overrides)
        ended = job.claim(prepare=spoil)
        kept = checkpoint.newest(job.folder)
        finite = kept is not None and all(t.isfinite().all() for t in kept.tensors.values() if t.is_floating_point())
        again = job.claim()
        ends[where] = {
            "ends": f"exit status {ended.code}, {ended.error}",
            "last_checkpoint": None if kept is None else kept.step,
            "finite": bool(finite),
            "different": int(again.code != DONE or job.outcome(again) != undisturbed),
        }
    return ends


_SPOILED_STEP = 2


def _spoil_loss() -> None:
    calls, loss = itertools.count(1), vars(steps)["cross_entropy"]

    def spoiled(*arguments: Any, **more: Any) -> torch.Tensor:  # noqa: ANN401 - handed on
        computed: torch.Tensor = loss(*arguments, **more)
        return computed * (torch.nan if next(calls) == _SPOILED_STEP else 1.0)

    vars(steps)["cross_entropy"] = spoiled


def _spoil_gradient() -> None:
    _hook(lambda parameter: parameter.grad.view(-1)[:1].fill_(torch.nan), before=True)


def _spoil_weight() -> None:
    _hook(lambda parameter: parameter.data.view(-1)[:1].fill_(torch.inf), before=False)


def _hook(spoil: Callable[[Any], Any], *, before: bool) -> None:
    """Have the optimizer's second step followed or preceded by something."""
    build = optimizer.build

    def spoiling(*arguments: Any, **more: Any) -> torch.optim.Optimizer:  # noqa: ANN401 - handed on
        built, calls = build(*arguments, **more), itertools.count(1)

        def strike(which: torch.optim.Optimizer, _arguments: Any, _more: Any) -> None:  # noqa: ANN401 - torch's own
            if next(calls) == _SPOILED_STEP:
                spoil(which.param_groups[0]["params"][0])

        built.register_step_pre_hook(strike) if before else built.register_step_post_hook(strike)
        return built

    optimizer.build = spoiling
