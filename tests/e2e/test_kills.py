"""Every part is killed once while a training runs; the user sees a training that ends well."""

import os
import signal
import threading

from running import processes_that_name, run_up
from samples import mini_test_images, zip_mini

from resnetd.client import Client

TRAINING = {
    "epochs": 6,
    "lr": 0.1,
    "batch_size": 32,
    "image_size": 16,
    "warmup_epochs": 0,
    "ema_decay": None,
    "precision": "fp32",
    "checkpoint_seconds": 0.5,
}
# In this order: what is killed, and the share of the training after which it is.
PARTS = (
    (" -m worker ", 0.1),
    (" -m app.engine", 0.3),
    (" -m app ", 0.5),
    ("redis-server", 0.6),
    (" -m worker.trainer", 0.7),
)


def kill(part, data):
    pids = [int(line.partition(":")[0]) for line in processes_that_name(data) if part in line + " "]
    assert pids, f"{part} does not run"
    os.kill(min(pids), signal.SIGKILL)


def test_a_training_ends_well_whatever_part_is_killed_and_its_stream_has_no_gap(tmp_path):
    data, log = tmp_path / "var", tmp_path / "up.log"
    running, url = run_up(data, log=log)
    try:
        with Client(url) as client:
            accepted = client.upload_dataset(zip_mini(tmp_path / "mini.zip"))
            assert client.wait(accepted["job"]["id"])["state"] == "succeeded"
            request = {
                "recipe": "fashion-mnist-small",
                "overrides": TRAINING,
                "register_as": "m",
                "alias": "production",
            }
            job_id = client.train(accepted["id"], **request)["id"]

            seen, killed = [], []
            for event in client.events(job_id):
                seen.append(event)
                if event.type == "progress" and len(killed) < len(PARTS):
                    part, share = PARTS[len(killed)]
                    if event.data["fraction"] >= share:
                        killed.append(part)
                        # Not from here: the stream itself is to be seen surviving it.
                        threading.Thread(target=kill, args=(part, data)).start()
            job = client.wait(job_id)

            assert job["state"] == "succeeded", (job["error"], log.read_text()[-4000:])
            assert len(killed) == len(PARTS)
            assert job["attempts"] >= 3  # the worker and the trainer were killed
            history = list(client.events(job_id))
            assert [event.id for event in seen] == [event.id for event in history]
            epochs = [event.data["epoch"] for event in history if event.type == "epoch"]
            assert sorted(set(epochs)) == list(range(1, TRAINING["epochs"] + 1))

            images = list(mini_test_images())[:20]
            assert client.classify(images, model="m@production")["version"] == 1
            assert [version["version"] for version in client.model("m")["versions"]] == [1]
    finally:
        running.stop()
    assert processes_that_name(data) == []
    assert "a part died and is started again" in log.read_text()
