"""Which training images are held out for validation, where a dataset has no val split: chosen by their content.

So the same images are held out by every training on them, whatever its seed, and those of a smaller share are among
those of a larger one: a training that starts from another one's model does not validate on what that one learned.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from store.control_group import usable_cores
from store.splits import Split
from worker.trainer.split_sizes import held_out

_CHUNK = 1024


def contents(split: Split, *, between: Callable[[], None]) -> npt.NDArray[np.uint64]:
    """The hash of each image's content, uint64 (N,); `between` is called every thousand images.

    On two idle cores 60,000 images of 28×28 take 0.1 s, and as long do 50,000 of 32×32×3.
    """
    found = np.empty(len(split), dtype=np.uint64)

    def part(start: int) -> None:
        for index in range(start, min(start + _CHUNK, len(found))):
            found[index] = split.content_hash(index)

    with ThreadPoolExecutor(usable_cores(), "hash") as pool:  # a hash of more than 2 KB is computed without the GIL
        parts = [pool.submit(part, start) for start in range(0, len(found), _CHUNK)]
        try:
            for each in parts:
                each.result()
                between()
        finally:
            for each in parts:
                each.cancel()
    return found


def stratified(
    labels: npt.NDArray[np.int64], hashes: npt.NDArray[np.uint64], *, fraction: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Indices (kept, held out), both in order; images of the same content are on one side.

    Of each class those with the least hashes are held out, as many as `held_out` says. Images that have copies come
    last: a class that has too few others gives them as long as it gives no more than it should, one content at least.
    What has two labels is kept.
    """
    counts = np.bincount(labels)
    wanted = held_out(counts, fraction)
    _, first, group, copies = np.unique(hashes, return_index=True, return_inverse=True, return_counts=True)
    owner = labels[first]
    owner[group[labels != owner[group]]] = -1  # of two labels
    order = np.lexsort((copies, owner))  # and among equals by hash, as `unique` has sorted them
    starts = np.searchsorted(owner[order], np.arange(len(counts) + 1))
    held = np.zeros(len(copies), dtype=bool)
    for label in np.flatnonzero(wanted):
        own = order[starts[label] : starts[label + 1]]
        taken = np.cumsum(copies[own]) <= wanted[label]
        taken[:1] |= copies[own[:1]] < counts[label]
        held[own[taken]] = True
    return np.flatnonzero(~held[group]), np.flatnonzero(held[group])
