from pathlib import Path

import pytest
import torch
from safetensors.torch import save as safetensors_save

from models import checkpoint, checkpoint_files
from models.checkpoint import Checkpoint
from models.checkpoint_files import CheckpointDamagedError, StoredCheckpoint
from worker.planner.memory import PeakMeter


def at(step: int) -> Checkpoint:
    return Checkpoint(step=step, state={"epoch": 1, "best": None}, tensors={"a/b": torch.full((2, 3), step)})


def test_what_was_saved_comes_back(tmp_path: Path):
    folder = checkpoint.save(tmp_path / "claim-1", at(7))
    back = checkpoint.load(folder)
    assert (back.step, back.state) == (7, {"epoch": 1, "best": None})
    assert torch.equal(back.tensors["a/b"], at(7).tensors["a/b"])


def test_a_file_of_tensors_has_the_bytes_that_safetensors_itself_writes():
    tensors = {
        f"{name}/{number}": (torch.arange(30).reshape(2, 3, 5) % 2).to(dtype)
        for number, dtype in enumerate(checkpoint._TYPES)
        for name in ("weights", 'a "quoted" näme', "bias")
    }
    tensors |= {"none": torch.zeros(0, 3), "scalar": torch.tensor(2.5), "sums": torch.zeros(3, dtype=torch.float64)}
    tensors["lasting"] = torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last)
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    assert b"".join(map(bytes, checkpoint.pieces(tensors))) == safetensors_save(contiguous)


def test_to_save_takes_little_memory_beside_the_state(tmp_path: Path):
    """Of 200 MB in 24 tensors, whose bytes lie in another order than in the file."""
    shape = (512, 64, 8, 8)
    tensors = {str(n): torch.ones(shape).to(memory_format=torch.channels_last) for n in range(24)}
    meter = PeakMeter(torch.device("cpu"))
    meter.settle()
    meter.reset()
    before = meter.read()
    checkpoint.save(tmp_path / "claim-1", Checkpoint(step=1, state={}, tensors=tensors))
    assert meter.read() - before < 100 * 2**20


def test_the_last_two_are_kept_over_all_claims(tmp_path: Path):
    for claim, step in ((1, 5), (1, 10), (2, 15)):
        checkpoint.save(tmp_path / f"claim-{claim}", at(step))
    assert [(step, claim) for step, claim, _ in checkpoint_files.found(tmp_path)] == [(15, 2), (10, 1)]
    assert sorted(place.name for place in tmp_path.glob("claim-1/*")) == ["step-10"]


def newest_step(run_dir: Path) -> int:
    found = checkpoint.newest(run_dir)
    assert found is not None
    return found.step


def test_the_furthest_of_the_latest_claim_is_found(tmp_path: Path):
    assert checkpoint.newest(tmp_path) is None
    for claim, step in ((2, 20), (10, 30), (10, 100)):
        checkpoint.save(tmp_path / f"claim-{claim}", at(step))
    assert newest_step(tmp_path) == 100


def test_a_process_that_lost_its_job_and_goes_on_touches_no_later_claims_checkpoints_and_is_not_gone_on_from(
    tmp_path: Path,
):
    for claim, step in ((1, 10), (2, 20), (2, 30), (1, 40), (1, 50), (1, 60)):
        checkpoint.save(tmp_path / f"claim-{claim}", at(step))
    assert newest_step(tmp_path) == 30
    assert sorted(place.name for place in tmp_path.glob("claim-2/*")) == ["step-20", "step-30"]
    (tmp_path / "claim-2" / ".half.tmp").mkdir()
    checkpoint_files.sweep(tmp_path / "claim-1")
    assert (tmp_path / "claim-2" / ".half.tmp").exists()


@pytest.mark.parametrize("file", ["tensors.safetensors", "state.json"])
@pytest.mark.parametrize("how", ["cut", "flipped", "gone"])
def test_a_damaged_one_is_refused_and_the_one_before_it_used(tmp_path: Path, file: str, how: str):
    checkpoint.save(tmp_path / "claim-1", at(1))
    victim = checkpoint.save(tmp_path / "claim-1", at(2)) / file
    data = bytearray(victim.read_bytes())
    if how == "cut":
        victim.write_bytes(data[: len(data) // 2])
    elif how == "flipped":
        data[-9] ^= 1
        victim.write_bytes(data)
    else:
        victim.unlink()
    with pytest.raises(CheckpointDamagedError):
        checkpoint.load(victim.parent)
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert found.step == 1


def test_one_that_was_never_finished_is_not_seen_and_is_swept_away(tmp_path: Path):
    whole = checkpoint.save(tmp_path / "claim-1", at(3))
    whole.rename(whole.with_name(".step-3.0123.tmp"))
    assert checkpoint.newest(tmp_path) is None
    checkpoint_files.sweep(tmp_path / "claim-2")
    assert list(tmp_path.glob("claim-1/*")) == []


def stored(step: int) -> StoredCheckpoint:
    return StoredCheckpoint(step=step, state={"epoch": 1}, tensors=b"any bytes")


def test_a_retry_inherits_the_newest_whole_checkpoint_and_both_runs_keep_it(tmp_path: Path):
    old, new = tmp_path / "old", tmp_path / "new"
    checkpoint_files.save(old / "claim-1", stored(1))
    damaged = checkpoint_files.save(old / "claim-2", stored(2))
    (damaged / "tensors.safetensors").write_bytes(b"other bytes")
    assert checkpoint_files.inherit(old, new) == new / "claim-0" / "step-1"
    assert (new / "claim-0/step-1/tensors.safetensors").samefile(old / "claim-1/step-1/tensors.safetensors")
    checkpoint_files.forget(old)
    assert checkpoint_files.newest(new) == stored(1)
    assert checkpoint_files.inherit(old, new) is None  # it goes on from its own


def test_a_run_without_a_checkpoint_gives_none(tmp_path: Path):
    assert checkpoint_files.inherit(tmp_path / "old", tmp_path / "new") is None
    assert not (tmp_path / "new").exists()


def test_what_changed_without_a_step_replaces_what_was_saved_at_that_step(tmp_path: Path):
    """As where an epoch ends behind its last step's checkpoint."""
    checkpoint.save(tmp_path / "claim-1", at(7))
    closed = Checkpoint(step=7, state={"epoch": 2}, tensors={"a/b": torch.ones(2, 3)})
    folder = checkpoint.save(tmp_path / "claim-1", closed)
    assert [each.name for each in (tmp_path / "claim-1").iterdir()] == ["step-7"]
    back = checkpoint.load(folder)
    assert back.state == {"epoch": 2}
    folder = checkpoint.save(tmp_path / "claim-1", Checkpoint(step=7, state={"epoch": 3}, tensors=back.tensors))
    assert checkpoint.load(folder).state == {"epoch": 3}
    assert torch.equal(back.tensors["a/b"], torch.ones(2, 3))


def test_a_failed_save_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(_: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint_files, "fsync_tree", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint_files.save(tmp_path / "claim-1", stored(1))
    assert list((tmp_path / "claim-1").iterdir()) == []
