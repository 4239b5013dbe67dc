"""Archives that mean harm, or were damaged at random, are refused in words, and soon."""

import errno
import io
import random
import tarfile
import zipfile

import pytest
from archives import LIMITS, Files, cats_and_dogs, png, tarred, zipped

from worker.importer.archive import ZipArchive
from worker.importer.limits import Limits
from worker.job_process import JobRefused


def refused(run_import, data: bytes, limits: Limits = LIMITS) -> str:
    with pytest.raises(JobRefused) as caught:
        run_import(data, limits)
    return caught.value.code


def limited(**changes: int) -> Limits:
    return Limits(**{**LIMITS.__dict__, **changes})


@pytest.mark.parametrize("name", ["/etc/x.png", "../x.png", "a/../../x.png", "C:/x.png", "a\\b.png", "a/\x1b[2J.png"])
def test_names_that_point_elsewhere_are_refused(run_import, name):
    files: Files = cats_and_dogs() | {name: png(0)}
    assert refused(run_import, zipped(files)) == "unsafe_archive"
    assert refused(run_import, tarred(files)) == "unsafe_archive"


@pytest.mark.parametrize("name", ["\\etc\\x.png", "..\\x.png", "a\\..\\..\\x.png", "C:\\x.png", "a\\b/c.png"])
def test_names_with_backslashes_that_point_elsewhere_are_refused_in_a_zip_of_windows(run_import, name):
    files: Files = cats_and_dogs() | {name: png(0)}
    assert refused(run_import, zipped(files, create_system=0)) == "unsafe_archive"


def test_a_nul_in_a_zip_name_is_refused(run_import):
    data = zipped(cats_and_dogs() | {"cat/aaXbb.png": png(0)}).replace(b"cat/aaXbb.png", b"cat/aa\0bb.png")
    assert refused(run_import, data) in {"unsafe_archive", "broken_archive"}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused(run_import, kind):
    out = io.BytesIO(tarred(cats_and_dogs()))
    with tarfile.open(fileobj=out, mode="a:") as archive:
        info = tarfile.TarInfo("cat/link.png")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    assert refused(run_import, out.getvalue()) == "unsafe_archive"


def test_a_link_in_a_zip_is_refused(run_import):
    out = io.BytesIO(zipped(cats_and_dogs()))
    with zipfile.ZipFile(out, "a") as archive:
        info = zipfile.ZipInfo("cat/link.png")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    assert refused(run_import, out.getvalue()) == "unsafe_archive"


def test_an_encrypted_zip_is_refused(run_import):
    data = bytearray(zipped(cats_and_dogs()))
    entry = data.index(b"PK\1\2")
    data[entry + 8] |= 1
    assert refused(run_import, bytes(data)) == "unsafe_archive"


def test_members_that_share_bytes_are_refused(run_import):
    data = bytearray(zipped(cats_and_dogs()))
    first = data.index(b"PK\1\2")
    second = data.index(b"PK\1\2", first + 4)
    data[second + 42 : second + 46] = data[first + 42 : first + 46]
    assert refused(run_import, bytes(data)) == "unsafe_archive"


def test_more_members_than_allowed_are_refused(run_import):
    for data in (zipped(cats_and_dogs()), tarred(cats_and_dogs())):
        assert refused(run_import, data, limited(members=19)) == "archive_too_large"


@pytest.mark.parametrize("compression", ["gz", "bz2", "xz"])
def test_a_bomb_is_refused_by_its_ratio(run_import, compression):
    zeros = bytes(100 * 2**20)
    bomb = cats_and_dogs(each=2) | {"cat/zeros.png": zeros}
    assert refused(run_import, tarred(bomb, compression)) == "archive_too_large"
    if compression == "gz":
        assert refused(run_import, zipped(bomb)) == "archive_too_large"


def test_more_unpacked_bytes_than_allowed_are_refused(run_import):
    assert refused(run_import, zipped(cats_and_dogs()), limited(unpacked_bytes=1000)) == "archive_too_large"


def test_one_image_of_too_many_bytes_or_pixels_only_goes_to_the_report(run_import):
    files = cats_and_dogs() | {"cat/big.png": png(0, size=(40, 40))}
    for limits in (limited(image_bytes=2000), limited(image_pixels=1000)):
        dataset, _ = run_import(zipped(files), limits)
        assert [note.file for note in dataset.report.corrupt] == ["cat/big.png"]


def test_a_member_with_a_wrong_checksum_only_goes_to_the_report(run_import):
    data = bytearray(zipped(cats_and_dogs()))
    data[60] ^= 0xFF  # inside the first member's bytes
    dataset, _ = run_import(bytes(data))
    assert [note.file for note in dataset.report.corrupt] == ["cat/0.png"]


@pytest.mark.parametrize("make", [zipped, tarred, lambda files: tarred(files, "gz")], ids=["zip", "tar", "tar.gz"])
def test_archives_damaged_at_random_import_or_are_refused_and_raise_nothing_else(run_import, make):
    original = make(cats_and_dogs(each=3))
    rng = random.Random(len(original))
    outcomes = set()
    for _ in range(150):
        data = bytearray(original)
        for _ in range(rng.randint(0, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        if rng.random() < 0.2:
            del data[rng.randrange(len(data)) :]
        try:
            run_import(bytes(data))
            outcomes.add("imported")
        except JobRefused as refusal:
            outcomes.add(refusal.code)
    assert "imported" in outcomes
    assert "broken_archive" in outcomes


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.type = kind
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = tarfile.itn(size, 12, tarfile.GNU_FORMAT)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE])
@pytest.mark.parametrize("before", [b"", tarred(cats_and_dogs())[:-10240]], ids=["at the front", "behind files"])
def test_headers_about_headers_without_end_are_refused(run_import, kind, before):
    about = header("././@LongLink", 2, kind) + b"x".ljust(512, b"\0")
    assert refused(run_import, before + about * 3000 + tarred(cats_and_dogs())) == "broken_archive"


@pytest.mark.parametrize("left_out", [1, 7])
def test_a_zip_that_lost_its_first_members_is_refused(run_import, left_out):
    data = zipped(cats_and_dogs())
    start = 0
    for _ in range(left_out):
        start = data.index(b"PK\3\4", start + 4)
    assert refused(run_import, data[start:]) == "broken_archive"


def test_a_zip_whose_member_has_a_name_that_is_no_utf8_is_refused(run_import):
    data = bytearray(zipped(cats_and_dogs() | {"dog/ab.png": png(0)}))
    at = data.index(b"PK\3\4", data.index(b"dog/9.png"))
    data[at + 7] |= 0x08  # of its own header alone, which says that the name is UTF-8
    data[at + 34 : at + 36] = b"\xff\xfe"
    assert refused(run_import, bytes(data)) == "broken_archive"


def test_a_tar_that_leads_back_is_refused_at_once(run_import):
    """A size below zero; each time round would be a member more."""
    front, end = tarred(cats_and_dogs())[:-10240], bytes(10240)
    round_and_round = front + header("cat/x.png", -2048) + end
    assert refused(run_import, round_and_round, limited(members=100_000)) == "unsafe_archive"
    assert refused(run_import, front + header("cat/x.png", -512) + end) == "unsafe_archive"


@pytest.mark.parametrize("keyword", ["size", "GNU.sparse.realsize"])
def test_members_of_a_tar_that_share_bytes_are_refused(run_import, keyword):
    """A header for all members gives each a size that reaches over those behind it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, pax_headers={keyword: "3000"}) as archive:
        for name, data in cats_and_dogs().items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    assert refused(run_import, out.getvalue()) == "unsafe_archive"


@pytest.mark.parametrize("extra", [{}, {"manifest.csv": b"file,label\ncat/1.png,x\n"}], ids=["folders", "manifest"])
def test_an_impossible_place_is_the_archives_fault_and_a_failing_disk_is_not(run_import, monkeypatch, extra):
    def failing(error: int):
        def open(self, member):  # noqa: A001 - the archive's own name for it
            raise OSError(error, "from the system")

        return open

    monkeypatch.setattr(ZipArchive, "open", failing(errno.EINVAL))
    assert refused(run_import, zipped(cats_and_dogs() | extra)) == "broken_archive"
    monkeypatch.setattr(ZipArchive, "open", failing(errno.EIO))
    with pytest.raises(OSError, match="from the system"):
        run_import(zipped(cats_and_dogs() | extra))


def disk_fails_once(run_import, monkeypatch, files: Files, name: str) -> None:
    opened, failed = ZipArchive.open, []

    def open(self, member):  # noqa: A001 - the archive's own name for it
        if member.name == name and not failed:
            failed.append(member)
            raise OSError(errno.EIO, "from the system")
        return opened(self, member)

    monkeypatch.setattr(ZipArchive, "open", open)
    with pytest.raises(OSError, match="from the system"):
        run_import(zipped(files))


@pytest.mark.parametrize("name", ["cat/0.png", "animals.csv"])
def test_a_disk_that_fails_while_files_are_looked_at_ends_the_import(run_import, monkeypatch, name):
    """Else an IDX file would be none, and a manifest would be passed over."""
    rows = "image,label\n" + "".join(f"pics/{n}.png,{n % 2}\n" for n in range(8))
    files = {f"pics/{n}.png": png(n) for n in range(8)} | {"animals.csv": rows.encode(), "cat/0.png": png(9)}
    disk_fails_once(run_import, monkeypatch, files, name)
