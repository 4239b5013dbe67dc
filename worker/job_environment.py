"""The environment of the processes that compute with torch."""

from store.process import child_environment

# glibc gives large freed blocks back to the kernel, and a training step asks for the same ones again: their pages are
# mapped and zeroed with every step. Kept, they made steps 6–18 % faster in bf16 and a quarter in float32 (d2l/resnet18,
# batch 64, CPU time). The kernel has them back when the process ends.
KEEP_PAGES = {"MALLOC_MMAP_THRESHOLD_": str(4 << 30), "MALLOC_TRIM_THRESHOLD_": str(16 << 30)}


def computing_environment() -> dict[str, str]:
    """For a child that trains or evaluates and calls `attach_to_parent`; an operator's own allocator settings win."""
    return {**KEEP_PAGES, **child_environment()}
