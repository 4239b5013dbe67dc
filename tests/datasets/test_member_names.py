"""What the members of archives are called: in UTF-8 that nothing announces, by Info-ZIP's field, in old alphabets."""

import io
import struct
import tarfile
import unicodedata
import zipfile
import zlib

import pytest
from archives import Files, cats_and_dogs, png, zipped

from worker.job_process import JobRefused

_UNICODE_PATH = 0x7075


class _Raw(zipfile.ZipInfo):
    """A member whose header holds these bytes for its name, and no flag for UTF-8."""

    raw = b""

    def _encodeFilenameFlags(self):  # noqa: N802 - zipfile's name
        return self.raw, self.flag_bits & ~0x800


def flagless(files: dict[bytes, bytes], extra: dict[bytes, bytes] | None = None) -> bytes:
    """As Debian's `zip` and the Finder of macOS write them: names in any encoding, which nothing tells."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for raw, data in files.items():
            info = _Raw(raw.decode("cp437"))
            info.raw, info.create_system, info.extra = raw, 3, (extra or {}).get(raw, b"")
            archive.writestr(info, data)
    return out.getvalue()


def unicode_path(raw: bytes, name: bytes, *, version: int = 1, crc: int | None = None) -> bytes:
    """The extra field that tells a member's name, behind another field."""
    field = struct.pack("<BL", version, zlib.crc32(raw) if crc is None else crc) + name
    return struct.pack("<HHI", 0xCAFE, 4, 0) + struct.pack("<HH", _UNICODE_PATH, len(field)) + field


def encoded(files: Files, encoding: str, form: str = "NFC") -> dict[bytes, bytes]:
    return {unicodedata.normalize(form, name).encode(encoding): data for name, data in files.items()}


# Two classes whose names have letters outside ASCII, also of code page 437.
FILES = {f"{name}/é{i}.png": png(i + 100 * label) for label, name in enumerate(["été", "Füße"]) for i in range(10)}
CLASSES = ("Füße", "été")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_in_utf8_are_read_as_such_where_the_zip_does_not_say_so(run_import, form):
    dataset, _ = run_import(flagless(encoded(FILES, "utf-8", form)))
    assert dataset.classes == CLASSES
    assert dataset.digest == run_import(zipped(FILES))[0].digest


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_manifest_finds_the_files_of_such_a_zip(run_import, form):
    rows = "file,label\n" + "".join(f"{name},{name[0]}\n" for name in FILES)
    dataset, _ = run_import(flagless(encoded(FILES | {"manifest.csv": rows.encode()}, "utf-8", form)))
    assert (dataset.report.images, dataset.report.skipped) == (20, ())


def test_names_that_cannot_be_utf8_are_of_code_page_437(run_import):
    dataset, _ = run_import(flagless(encoded(FILES, "cp437")))
    assert dataset.classes == CLASSES
    assert dataset.digest == run_import(zipped(FILES))[0].digest


def test_a_unicode_path_beside_a_name_in_a_local_alphabet_is_the_name(run_import):
    names = {name.encode("latin-1"): name for name in FILES}
    files = {raw: FILES[name] for raw, name in names.items()}
    extra = {raw: unicode_path(raw, name.encode()) for raw, name in names.items()}
    assert run_import(flagless(files, extra))[0].classes == CLASSES
    # Of another alphabet, whose bytes happen to be UTF-8.
    cats = {f"è/{i}.png": png(i) for i in range(5)}
    files = encoded(cats | {f"dog/{i}.png": png(50 + i) for i in range(5)}, "utf-8")
    extra = {raw: unicode_path(raw, raw.decode("gbk").encode()) for raw in files}
    assert run_import(flagless(files, extra))[0].classes == ("dog", "猫")


@pytest.mark.parametrize(
    "field",
    [{"crc": 1}, {"version": 2}, {"name": b""}, {"name": b"\xff/x.png"}],
    ids=["of another name", "of another version", "empty", "no UTF-8"],
)
def test_a_unicode_path_that_does_not_hold_is_passed_over(run_import, field):
    files = encoded(FILES, "utf-8")
    extra = {raw: unicode_path(raw, **{"name": b"other/x.png", **field}) for raw in files}
    assert run_import(flagless(files, extra))[0].classes == CLASSES


@pytest.mark.parametrize("name", ["../x.png", "/etc/x.png", "a\\b.png", "a\0b.png", "a/\x1b[2J.png"])
def test_a_unicode_path_that_points_elsewhere_is_refused(run_import, name):
    files = {raw.encode(): data for raw, data in cats_and_dogs().items()}
    with pytest.raises(JobRefused) as caught:
        run_import(flagless(files, {b"cat/0.png": unicode_path(b"cat/0.png", name.encode())}))
    assert caught.value.code == "unsafe_archive"


def test_a_refusal_names_the_member_as_it_is_called(run_import):
    data = bytearray(flagless({**encoded(FILES, "utf-8"), "été/geheim.png".encode(): png(0)}))
    entry = data.rindex(b"PK\1\2")
    data[entry + 8] |= 1  # encrypted
    with pytest.raises(JobRefused) as caught:
        run_import(bytes(data))
    assert "été/geheim.png" in caught.value.message


def test_a_tar_of_an_old_alphabet_keeps_its_classes_apart(run_import):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT, encoding="gbk") as archive:
        for label, name in enumerate(["狗", "鸟"]):
            for i in range(5):
                info, data = tarfile.TarInfo(f"{name}/{i}.png"), png(i + 100 * label)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    dataset, _ = run_import(out.getvalue())
    assert (len(dataset.classes), dataset.report.images) == (2, 10)


def test_a_tar_is_read_as_utf8_whatever_alphabet_the_machine_has(run_import, monkeypatch):
    monkeypatch.setattr(tarfile.TarFile, "encoding", "iso8859-1")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT, encoding="utf-8") as archive:
        for name, data in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    assert run_import(out.getvalue())[0].classes == CLASSES
