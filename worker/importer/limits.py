"""What an archive may cost, and how its refusal is said."""

from dataclasses import dataclass

from store.settings import Settings
from worker.job_process import JobRefused

SMALL = 16 * 2**20  # bytes; what stays below cannot hurt, so its ratio is not looked at
LARGEST_READ = 64 * 2**20  # bytes; no archive header is larger


@dataclass(frozen=True, kw_only=True)
class Limits:
    """`members` files, `ratio` of unpacked to packed bytes, `unpacked_bytes` in all; per image bytes and pixels."""

    members: int
    ratio: int
    unpacked_bytes: int
    image_bytes: int
    image_pixels: int

    @classmethod
    def of(cls, settings: Settings) -> "Limits":
        return cls(
            members=settings.max_archive_members,
            ratio=settings.max_archive_ratio,
            unpacked_bytes=settings.max_dataset_bytes,
            image_bytes=settings.max_image_bytes,
            image_pixels=settings.max_image_pixels,
        )

    def unpacked(self, packed: int) -> int:
        """Most bytes that `packed` bytes may unpack to."""
        return min(max(SMALL, packed * self.ratio), self.unpacked_bytes)


def broken(reason: str) -> JobRefused:
    return JobRefused(
        "broken_archive", f"the archive is broken: {reason}", "Make the archive anew, or upload it again in full."
    )


def unsafe(name: str, reason: str) -> JobRefused:
    return JobRefused(
        "unsafe_archive",
        f"the archive holds {name[:200]!r}, which {reason}",
        "Archive only plain files and folders, with relative names that use / between folders.",
    )


def too_large(reason: str) -> JobRefused:
    return JobRefused("archive_too_large", f"the archive is too large: {reason}", "Split it, or raise the limit.")


def not_an_archive(reason: str, hint: str) -> JobRefused:
    return JobRefused("unsupported_archive", reason, hint)
