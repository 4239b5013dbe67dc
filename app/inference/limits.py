"""How much an engine holds at once, as it knows and as those know who ask it: they need not ask when it is full."""

from dataclasses import dataclass

from store.settings import Settings

_REQUESTS = 4  # of the largest size whose bytes may lie in an engine's memory undecoded
_SHOWN = 8  # what is explained and shown, beside classification, has this part of the places and bytes each


@dataclass(frozen=True)
class Limits:
    """What an engine holds at once of one kind of work."""

    images: int
    bytes: int

    @property
    def shown(self) -> "Limits":
        """Of explanations, or of previews, where this is of classification."""
        return Limits(images=-(-self.images // _SHOWN), bytes=-(-self.bytes // _SHOWN))

    def full(self, images: int, size: int, *, held_images: int, held_bytes: int) -> bool:
        """Whether so many images, of `size` bytes, have no place beside what is held. One request alone always has."""
        return held_images > 0 and (held_images + images > self.images or held_bytes + size > self.bytes)


def engine_limits(settings: Settings) -> Limits:
    """Those of classification."""
    return Limits(images=settings.max_waiting_images, bytes=_REQUESTS * settings.max_request_bytes)
