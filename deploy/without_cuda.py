"""Divide a hash-locked requirements file for an image without CUDA.

    python without_cuda.py requirements.txt REST TORCH

REST gets every requirement but torch, torchvision and what serves CUDA alone, with its hashes. TORCH gets torch and
torchvision with their versions and without hashes: builds without CUDA are other files. Standard library only.
"""

import re
import sys
from pathlib import Path

_BUILDS = ("torch", "torchvision")
_CUDA_ONLY = re.compile(r"^(nvidia-|cuda-|triton$)")


def requirements(text: str) -> list[str]:
    """The requirements of a pip file, each with its continuation lines; comments and options are dropped."""
    joined = re.sub(r"\s*\\\n\s*", " ", text)
    return [line.strip() for line in joined.splitlines() if line.strip() and line.lstrip()[0] not in "#-"]


def divide(text: str) -> tuple[list[str], list[str]]:
    """(everything else, torch and torchvision)."""
    rest, builds = [], []
    for line in requirements(text):
        name = re.split(r"[\s=<>;\[]", line, maxsplit=1)[0].lower().replace("_", "-")
        if name in _BUILDS:
            builds.append(line.split(" --hash", 1)[0].strip())
        elif not _CUDA_ONLY.match(name):
            rest.append(line)
    return rest, builds


def main() -> None:
    source, rest, builds = (Path(argument) for argument in sys.argv[1:])
    for target, lines in zip((rest, builds), divide(source.read_text()), strict=True):
        target.write_text("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    main()
