"""Whether a server answers as torchvision does, with its preset on Pillow and its model in float32."""

import json
from pathlib import Path

import httpx
import numpy as np
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file
from torchvision.transforms._presets import ImageClassification


def torchvisions_answers(folder: Path, network: str, photos: list[Path]) -> np.ndarray:
    """Probabilities (photographs, classes) of a model version's weights, computed without any code of this project."""
    classes = json.loads((folder / "model.json").read_text())["classes"]
    model = torchvision.models.get_model(network, num_classes=len(classes))
    model.load_state_dict(load_file(folder / "weights.safetensors"))
    model.eval()
    preprocess = ImageClassification(crop_size=224, resize_size=256)
    with torch.no_grad():
        rows = [model(preprocess(Image.open(path).convert("RGB")).unsqueeze(0)).softmax(1)[0] for path in photos]
    return torch.stack(rows).numpy()


def parity(url: str, photos: list[Path], expected: np.ndarray) -> dict[str, float]:
    """The largest deviation of a probability, and the share of photographs with the same top class."""
    ours = np.zeros_like(expected)
    with httpx.Client(timeout=60) as client:
        for row, path in zip(ours, photos, strict=True):
            answer = client.post(
                url, params={"top_k": len(row)}, content=path.read_bytes(), headers={"Content-Type": "image/jpeg"}
            )
            for each in answer.raise_for_status().json()["results"][0]["top_k"]:
                row[each["class_index"]] = each["probability"]
    same = ours.argmax(axis=1) == expected.argmax(axis=1)
    return {"deviation": round(float(np.abs(ours - expected).max()), 6), "same_top_1": float(same.mean())}
