"""How many labels an answer has room for: they travel in the header of one frame (`app/inference/protocol.py`)."""

from collections.abc import Sequence

import orjson

from app.inference.protocol import MAX_HEADER_BYTES

FEW_LABELS = 10_000  # of a request; so many fit whatever the classes are called
_LABEL_BYTES = 80  # of a label's JSON without its name: the keys, an index, a probability
_RESULT_BYTES = 1024  # of an image's result without its labels: an error, or warnings


def most_labels(classes: Sequence[str], *, images: int) -> int:
    """The largest `top_k` whose answer for so many images fits, however long the likeliest classes' names are."""
    longest = max((len(orjson.dumps(name)) for name in classes), default=0)
    return max(0, (MAX_HEADER_BYTES // images - _RESULT_BYTES) // (_LABEL_BYTES + longest))
