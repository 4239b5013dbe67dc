"""Names inside archives: which are dangerous, which are the litter of operating systems."""

import unicodedata

from worker.importer.limits import unsafe

Parts = tuple[str, ...]

_LITTER = frozenset(
    {
        "__macosx",
        ".ds_store",
        "thumbs.db",
        "desktop.ini",
        "icon\r",
        ".directory",
        "@eadir",
        ".git",
        ".ipynb_checkpoints",
    }
)


def safe_parts(name: str) -> Parts:
    """A member's name as its folders and file name, in Unicode form NFC, so that archives of all systems agree.

    Nothing is ever written under such a name; a dangerous one is refused because an honest archive has none.
    Raises JobRefused.
    """
    name = decoded(name.encode(errors="surrogateescape"))  # tarfile's sign for bytes that are no UTF-8
    if "\0" in name:
        raise unsafe(name, "has a NUL in its name")
    if "\\" in name:
        raise unsafe(name, "has a backslash in its name")
    if name.startswith("/") or (name[1:2] == ":" and name[:1].isalpha()):
        raise unsafe(name, "has an absolute name")
    parts = tuple(part for part in unicodedata.normalize("NFC", name).split("/") if part not in {"", "."})
    if ".." in parts:
        raise unsafe(name, "points outside the archive (..)")
    if is_litter(parts):
        return parts
    if any(len(part) > 255 or any(unicodedata.category(c) == "Cc" for c in part) for part in parts) or len(parts) > 32:
        raise unsafe(name, "has a name with control characters, over-long parts or too many folders")
    return parts


def decoded(raw: bytes) -> str:
    """A name whose encoding nothing tells: UTF-8 where it is that, else code page 437.

    That is what a zip means by default, and it has a character for every byte: different names stay different.
    """
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("cp437")


def is_litter(parts: Parts) -> bool:
    """Whether an operating system left this, not a person: resource forks, folder views, thumbnails."""
    return any(part.lower() in _LITTER or part.startswith("._") for part in parts)
