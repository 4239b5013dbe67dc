"""A slot is named by the hardware and not by what a process calls it."""

import socket

import pytest

from jobs.model import Lane
from worker import device_identity
from worker.device_identity import gpu, host, identity
from worker.lane import lock_path, slot

UUIDS = [f"GPU-{digit * 8}-0000-0000-0000-{digit * 12}" for digit in "abc"]


@pytest.fixture
def machine(tmp_path):
    """A driver's files for three GPUs, as /proc and /dev have them."""
    told, nodes = tmp_path / "gpus", tmp_path / "dev"
    nodes.mkdir()
    for number, uuid in enumerate(UUIDS):
        slot = told / f"0000:{number + 1:02x}:00.0"
        slot.mkdir(parents=True)
        lines = ["Model: \t\t NVIDIA H200", f"GPU UUID: \t {uuid}", "Bus Type: \t PCIe", f"Device Minor: \t {number}"]
        (slot / "information").write_text("\n".join([*lines, ""]))
        (nodes / f"nvidia{number}").touch()
    return {"told": told, "nodes": nodes}


@pytest.mark.parametrize(
    ("index", "visible", "expected"),
    [
        (0, None, UUIDS[0]),
        (2, None, UUIDS[2]),
        (3, None, None),
        (0, "2", UUIDS[2]),
        (1, "2, 0", UUIDS[0]),
        (0, "7", None),
        (0, "GPU-bbbb", UUIDS[1]),
        (0, "MIG-5a1c", "MIG-5a1c"),
        (0, "MIG-../x", None),
        (0, "", None),
        (1, "0", None),
    ],
)
def test_a_gpu_is_known_by_its_uuid_whichever_number_it_has_here(machine, index, visible, expected):
    assert gpu(index, visible, **machine) == expected


def test_two_containers_with_a_gpu_each_have_different_ones_although_both_see_all_below_proc(machine):
    for number in (0, 1):
        (machine["nodes"] / f"nvidia{number}").unlink()
    assert gpu(0, None, **machine) == UUIDS[2]
    assert gpu(1, None, **machine) is None


def test_a_gpu_that_hides_its_uuid_has_none(machine):
    """And one that shows it as soon as it is opened, as a driver does at rest, cannot be had here."""
    information = machine["told"] / "0000:01:00.0" / "information"
    information.write_text(information.read_text().replace(UUIDS[0], "GPU-????????-????-????-????-????????????"))
    assert gpu(0, "GPU-aaaa", **machine) is None


def test_machines_that_share_a_data_directory_do_not_exclude_each_other(layout, monkeypatch):
    def on(name: str, lane: Lane, device: str):
        monkeypatch.setattr(socket, "gethostname", lambda: name)
        identity.cache_clear()
        return lock_path(layout, lane, device)

    try:
        names = [on(name, lane, "cpu") for name in ("a", "b") for lane in Lane]
        names += [on(name, Lane.DEVICE, "cpu:0") for name in ("a", "b")]
        names += [on(name, Lane.DEVICE, "cuda:3") for name in ("a", "b")]
        assert len(set(names)) == len(names)
        with slot(layout, Lane.CPU, "cpu") as first:
            on("c", Lane.CPU, "cpu")
            with slot(layout, Lane.CPU, "cpu") as second:
                assert None not in (first, second)
    finally:
        identity.cache_clear()


@pytest.mark.parametrize("name", ["../../etc", "a/b", "", ".", "x" * 200, "rechner-ä"])
def test_an_odd_name_of_a_machine_is_hashed(name, monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: name)
    assert device_identity._PLAIN.fullmatch(host())
    assert host() != name
