"""A dataset upload from a request to disk: a raw body, or a form with fields and files; memory stays flat."""

import math
from collections.abc import Mapping

import anyio
import anyio.to_thread
from starlette.requests import Request

from app import bodies
from app.dataset_files import EXAMPLE, DatasetFiles
from app.form_files import MAX_FORM_OVERHEAD, TERM_FIELDS, read_files, terms_of
from app.multipart import plain_filename
from app.services.dataset_uploads import DatasetUploads, check_filename
from app.services.dataset_views import UploadRecord
from store.settings import Settings

_FIELDS = {"name": 1024, **TERM_FIELDS}  # and the most bytes of each
_MAX_FILES = 100


async def receive(
    request: Request,
    uploads: DatasetUploads,
    settings: Settings,
    *,
    name: str | None,
    terms: Mapping[str, object],
    key: str | None,
    filename: str | None = None,
) -> UploadRecord:
    """`filename` is the one in the address. Raises ProblemError; a client that goes away midway raises
    ClientDisconnect. Either way the part is removed.
    """
    if filename is not None:
        check_filename(filename)
        filename = plain_filename(filename) or None
    hint = f"RESNETD_MAX_DATASET_BYTES is {settings.max_dataset_bytes:,}."
    content_type = request.headers.get("content-type", "")
    is_form = content_type.partition(";")[0].strip().lower() == "multipart/form-data"
    limit = settings.max_dataset_bytes + (MAX_FORM_OVERHEAD if is_form else 0)
    bodies.check_length(request, limit, hint=hint)
    upload = await uploads.begin(idempotency_key=key, announced=bodies.announced(request))
    files = DatasetFiles(upload, form=is_form)
    fields: dict[str, str] = {}
    try:
        pieces = bodies.stream(request, limit, hint=hint, seconds=math.inf)
        if is_form:
            fields = await read_files(pieces, content_type, files, fields=_FIELDS, most=_MAX_FILES, example=EXAMPLE)
        else:
            await files.begin(filename)
            async for piece in pieces:
                await files.put(piece)
            await files.end()
        await files.finish()
        return await uploads.accept(
            upload,
            name=name or fields.get("name"),
            filename=filename or files.filename,
            terms=terms_of(terms, fields),
        )
    finally:
        files.close()
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(upload.close)
