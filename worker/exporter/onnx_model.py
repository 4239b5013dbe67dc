"""A model version as an ONNX model: from prepared pixels to logits, for any number of images."""

import logging
import warnings
from pathlib import Path

import onnx
import onnxruntime as ort  # type: ignore[import-untyped]  # it ships no types
import torch
from safetensors.numpy import load_file

from models.manifest import GOLDEN
from worker.exporter.proof import proven

OPSET = 20  # of the ONNX standard operators; onnxruntime reads it from 1.17 on
INPUT, OUTPUT = "images", "logits"


def convert(program: torch.export.ExportedProgram) -> onnx.ModelProto:
    """uint8 `images` (N, H, W, C) → float32 `logits` (N, K), any N from 1 on, normalisation inside.

    Convolutions have their normalisation folded in. What the exporter notes of this program's source is removed, so
    that the same version gives the same bytes.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own use of torch
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        exported = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            external_data=False,
            verbose=False,
        )
    if exported is None:  # only where it was to write a file itself
        raise RuntimeError("torch.onnx.export gave no model")
    model = exported.model_proto
    _tidy(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def write(model: onnx.ModelProto, target: Path, *, manifest: bytes) -> None:
    """Save the model, model.json inside it as the metadata property `model.json`."""
    model.metadata_props.add(key="model.json", value=manifest.decode())
    target.write_bytes(model.SerializeToString(deterministic=True))


def check(target: Path, folder: Path) -> float:
    """Run what was written on the golden images, together and one alone: the largest deviation of a logit.

    Raises JobRefused above the tolerance of `models/golden.py`.
    """
    golden = load_file(folder / GOLDEN)
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = ort.InferenceSession(target, options, providers=["CPUExecutionProvider"])
    together, alone = (session.run([OUTPUT], {INPUT: images})[0] for images in (golden["images"], golden["images"][:1]))
    return proven((together, alone), golden["logits"], "The ONNX model")


def _tidy(model: onnx.ModelProto) -> None:
    """Remove stack traces with this machine's paths, and call the dimension that varies by a name."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    del graph.value_info[:]  # shapes between the operators, which whoever loads the model infers
    for end in (*graph.input, *graph.output):
        end.type.tensor_type.shape.dim[0].dim_param = "N"
