"""How the command line shows an evaluation."""

import pytest

from resnetd.commands.evaluate import show

ROW = {"precision": 0.5, "recall": 1.0, "f1": 0.666667}


def job(temperature_from: str | None) -> dict:
    figures = {"total": 4, "top1": 0.5, "top5": None, "temperature": 1.3, "images_per_second": 90.0}
    for name in ("log_loss", "brier", "ece"):
        figures |= {name: 0.25, f"{name}_uncalibrated": 0.5}
    rows = [{"label": "cat", **ROW, "support": 4}, {"label": "dog", **ROW, "support": 0}]
    figures |= {"temperature_from": temperature_from, "per_class": rows}
    result = {"model": "pets", "version": 1, "dataset": "ds_1", "split": "test", "metrics": figures}
    return {"id": "job_1", "result": result}


@pytest.mark.parametrize(
    ("origin", "said"),
    [("train", "fitted on some of train"), ("val", "fitted on val"), (None, "another split"), ("manifest", "")],
)
def test_an_evaluation_tells_whose_its_temperature_is_and_the_classes_that_had_images(capsys, origin, said):
    show(job(origin))
    shown = capsys.readouterr().out
    (line,) = [line for line in shown.splitlines() if line.startswith("temperature")]
    assert said in line
    assert line.endswith("1.3") == (origin == "manifest")
    assert "cat" in shown
    assert "dog" not in shown
