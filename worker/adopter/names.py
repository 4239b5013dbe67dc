"""Parameter names of other people's residual networks, and which network of the registry they fit.

Names are compared in one canonical form: `layer1.0.shortcut.0.weight`, `fc.weight`. Torchvision says `downsample` and
`fc`, the usual CIFAR ResNets say `shortcut` or `downsample` and `linear` or `fc`, ours of 20 to 110 layers say `stage`;
«Dive into Deep Learning» numbers the parts of an `nn.Sequential`.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Shape = tuple[int, ...]

_WRAPPER = re.compile(r"(module|_orig_mod|state_dict|model|_model|net|network|backbone|encoder|resnet|\d+)\.")
_RULES = (
    (re.compile(r"^(?:0|b1)\.([01])\."), r"stem.\1."),
    (re.compile(r"^([1-4])\.(\d+)\."), r"layer\1.\2."),
    (re.compile(r"^b([2-5])\.(\d+)\."), lambda found: f"layer{int(found[1]) - 1}.{found[2]}."),
    (re.compile(r"^(?:5\.2|[67])\."), "fc."),
    (re.compile(r"^(?:stage|layer)_?(\d)\."), r"layer\1."),
    (re.compile(r"^(?:fc|linear|classifier|head|last_linear|output)\.(?=weight$|bias$)"), "fc."),
    (re.compile(r"\.(?:shortcut|downsample|skip)\.(?=\d)"), ".shortcut."),
)
_FIRST = ("conv1.weight", "stem.0.weight", "stem.conv.weight")  # what the first convolution of a network here is called
_COUNTER = "num_batches_tracked"  # of a BatchNorm; older files have none, and nothing is computed with it


def unwrapped(names: Iterable[str]) -> dict[str, str]:
    """Each name with what stands in front of all of them taken off: `module.`, `model.`, `net.`, …"""
    found = {name: name for name in names}
    while found:
        prefix = _WRAPPER.match(next(iter(found.values())))
        if prefix is None or not all(name.startswith(prefix[0]) for name in found.values()):
            break
        found = {original: name.removeprefix(prefix[0]) for original, name in found.items()}
    return found


def canonical(name: str) -> str:
    for pattern, replacement in _RULES:
        name = pattern.sub(replacement, name)
    return name


def _of_shortcut(name: str) -> bool:
    return ".shortcut." in canonical(name)


def counts_batches(name: str) -> bool:
    return name.endswith(_COUNTER)


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How a state dict goes with one network.

    `names`: the network's own name of a tensor → the file's. `missing` are names of the network, `unexpected` of the
    file, in order; `shapes` are (the file's name, its shape, the network's).
    """

    network: str
    names: Mapping[str, str]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    shapes: tuple[tuple[str, Shape, Shape], ...]

    @property
    def complete(self) -> bool:
        return not (self.missing or self.unexpected or self.shapes)

    @property
    def differing(self) -> int:
        """How many tensors stand in the way."""
        return len(self.missing) + len(self.unexpected) + len(self.shapes)

    @property
    def only_projections(self) -> bool:
        """Whether all that stands in the way are weights of shortcuts, of which the network has none."""
        if self.missing or self.shapes or any(_of_shortcut(name) for name in self.names):
            return False
        return all(_of_shortcut(name) for name in self.unexpected)

    def difference(self) -> str:
        """The first of each kind, in words."""
        said = []
        if self.missing:
            said.append(f"{self.missing[0]!r} is missing{_more(self.missing)}")
        if self.unexpected:
            said.append(f"{self.unexpected[0]!r} is unexpected{_more(self.unexpected)}")
        if self.shapes:
            name, found, wanted = self.shapes[0]
            said.append(f"{name!r} has shape {found}, not {wanted}{_more(self.shapes)}")
        return "; ".join(said)


def fit(network: str, wanted: Mapping[str, Shape], found: Mapping[str, Shape]) -> Fit:
    """Match a file's tensors (`found`: name, with its wrappers, → shape) with those that a network has."""
    ours = {canonical(name): name for name in wanted if not counts_batches(name)}
    theirs: dict[str, str] = {}
    twice = []
    for original, name in unwrapped(found).items():
        if counts_batches(name):
            continue
        if canonical(name) in theirs:
            twice.append(original)
        theirs.setdefault(canonical(name), original)
    both = [key for key in ours if key in theirs]
    return Fit(
        network=network,
        names={ours[key]: theirs[key] for key in both},
        missing=tuple(ours[key] for key in ours if key not in theirs),
        unexpected=(*(theirs[key] for key in theirs if key not in ours), *twice),
        shapes=tuple(
            (theirs[key], found[theirs[key]], wanted[ours[key]])
            for key in both
            if tuple(found[theirs[key]]) != tuple(wanted[ours[key]])
        ),
    )


def sizes(found: Mapping[str, Shape]) -> tuple[int | None, int | None]:
    """(number of classes, input channels), as the head and the first convolution have them, or None."""
    shapes = {canonical(name): found[original] for original, name in unwrapped(found).items()}
    head = shapes.get("fc.weight") or shapes.get("fc2.weight")
    first = next((shapes[name] for name in _FIRST if name in shapes), None)
    classes = head[0] if head is not None and len(head) == 2 else None
    return classes, first[1] if first is not None and len(first) == 4 else None


def _more(found: tuple[object, ...]) -> str:
    return f" (and {len(found) - 1} more)" if len(found) > 1 else ""
