"""Make tests/data/fashion-mnist-mini from Fashion-MNIST: the first images of each class, in the original order.

    python tests/data/make_fashion_mnist_mini.py

reads `fashion-mnist/` in the folder named by RESNETD_TEST_DATA (default: ../shared/data). The files come out the same
to the byte each time.
"""

import gzip
import os
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
SOURCE = Path(os.environ.get("RESNETD_TEST_DATA", ROOT.parent / "shared" / "data")) / "fashion-mnist"
TARGET = Path(__file__).parent / "fashion-mnist-mini"
PER_CLASS = {"train": 200, "t10k": 100}


def main() -> None:
    for split, per_class in PER_CLASS.items():
        images = gzip.decompress((SOURCE / f"{split}-images-idx3-ubyte.gz").read_bytes())
        labels = gzip.decompress((SOURCE / f"{split}-labels-idx1-ubyte.gz").read_bytes())
        y = np.frombuffer(labels, np.uint8, offset=8)
        x = np.frombuffer(images, np.uint8, offset=16).reshape(len(y), 28, 28)
        chosen = np.sort(np.concatenate([np.flatnonzero(y == label)[:per_class] for label in range(10)]))
        count = len(chosen).to_bytes(4, "big")
        write(f"{split}-images-idx3-ubyte.gz", images[:4] + count + images[8:16] + x[chosen].tobytes())
        write(f"{split}-labels-idx1-ubyte.gz", labels[:4] + count + y[chosen].tobytes())


def write(name: str, data: bytes) -> None:
    (TARGET / name).write_bytes(gzip.compress(data, 9, mtime=0))


if __name__ == "__main__":
    main()
