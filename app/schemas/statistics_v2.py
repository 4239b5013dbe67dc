"""Shapes of Triton's statistics extension, as far as this server has them."""

from typing import Any

from pydantic import BaseModel, ConfigDict

STATISTICS_EXAMPLE: dict[str, Any] = {
    "model_stats": [
        {
            "name": "cifar10-resnet20",
            "version": "1",
            "last_inference": 1769860800000,
            "inference_count": 896,
            "execution_count": 112,
            "inference_stats": {
                "success": {"count": 320, "ns": 896000000},
                "fail": {"count": 2, "ns": 61000000},
                "queue": {"count": 320, "ns": 96000000},
                "compute_input": {"count": 320, "ns": 192000000},
                "compute_infer": {"count": 320, "ns": 608000000},
                "compute_output": {"count": 0, "ns": 0},
                "cache_hit": {"count": 0, "ns": 0},
                "cache_miss": {"count": 0, "ns": 0},
            },
            "batch_stats": [
                {
                    "batch_size": 8,
                    "compute_input": {"count": 0, "ns": 0},
                    "compute_infer": {"count": 112, "ns": 0},
                    "compute_output": {"count": 0, "ns": 0},
                }
            ],
        }
    ]
}


class Duration(BaseModel):
    """How often, and how many nanoseconds that took together."""

    count: int
    ns: int


class InferenceStats(BaseModel):
    """`success` takes what its stages take together. Not measured, and 0: `compute_output`. There is no cache."""

    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration
    cache_hit: Duration
    cache_miss: Duration


class BatchStats(BaseModel):
    """How many batches had so many images. How long they took is not measured by their size, and so 0."""

    batch_size: int
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration


class ModelStats(BaseModel):
    """`last_inference` in Unix milliseconds, 0 for never. `execution_count`: batches since the server's start."""

    name: str
    version: str
    last_inference: int
    inference_count: int
    execution_count: int
    inference_stats: InferenceStats
    batch_stats: list[BatchStats]


class StatisticsBody(BaseModel):
    """Of all HTTP processes since the server's start, and of whatever route an inference came by.

    A version is left out whose figures were given up for those of others that were asked later.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [STATISTICS_EXAMPLE]})

    model_stats: list[ModelStats]
