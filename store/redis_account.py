"""The account of the embedded Redis: its one user, the password in a file of the data directory, and the URL of both.

Whoever comes first makes the password, be it `resnetd up` or a worker that waits for it.
"""

import os
import secrets
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

from store.files import fsync_dir
from store.layout import Layout

USER = "resnetd"


def password(layout: Layout) -> str:
    """256 random bits, the same for everyone on this data directory."""
    path = layout.redis / "password"
    while True:
        try:
            return path.read_text()
        except FileNotFoundError:
            _create(path)


def url(layout: Layout) -> str:
    """`unix://user:password@socket`, as redis-py reads it."""
    return f"unix://{USER}:{password(layout)}@{quote(str(layout.redis_socket))}"


def _create(path: Path) -> None:
    """Whole or absent, and never replaced: of several that come at once one wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tmp = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    fd = os.open(tmp, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(fd, "w") as file:
            file.write(secrets.token_hex(32))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(tmp, path)
        except FileExistsError:
            return
        fsync_dir(path.parent)
    finally:
        tmp.unlink()
