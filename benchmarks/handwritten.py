"""The endpoint that people write: FastAPI, torchvision's preset on Pillow, the model as it is, float32.

`python -m benchmarks.handwritten FOLDER NETWORK --port N [--device cuda]` serves a model version's weights at
`POST /classify`.
"""

import argparse
import io
import json
from pathlib import Path

import torch
import torchvision
import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from PIL import Image
from safetensors.torch import load_file
from torchvision.transforms._presets import ImageClassification


def create_app(folder: Path, network: str, *, device: str) -> FastAPI:
    classes = json.loads((folder / "model.json").read_text())["classes"]
    model = torchvision.models.get_model(network, num_classes=len(classes))
    model.load_state_dict(load_file(folder / "weights.safetensors"))
    model.eval().to(device)
    preprocess = ImageClassification(crop_size=224, resize_size=256)
    app = FastAPI()

    def predict(data: bytes) -> list[dict[str, object]]:
        image = Image.open(io.BytesIO(data)).convert("RGB")
        with torch.no_grad():
            likely = model(preprocess(image).unsqueeze(0).to(device)).softmax(1)[0].topk(5)
        return [
            {"label": classes[i], "probability": p}
            for p, i in zip(likely.values.tolist(), likely.indices.tolist(), strict=True)
        ]

    @app.post("/classify")
    async def classify(request: Request) -> dict[str, object]:
        return {"predictions": await run_in_threadpool(predict, await request.body())}

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("network")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    uvicorn.run(create_app(asked.folder, asked.network, device=asked.device), port=asked.port, log_level="warning")


if __name__ == "__main__":
    main()
