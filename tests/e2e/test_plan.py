"""A training is planned by the real worker: measured where the device is free, never beside a training."""

ASKED = {"recipe": "fashion-mnist-small", "overrides": {"epochs": 2, "batch_size": 32, "precision": "fp32"}}


def test_the_worker_measures_real_steps_and_remembers_them(stack, digits):
    """Unless other work had the cores meanwhile, which it says."""
    jobs = stack.client.jobs(limit=100)["data"]
    for _ in range(5):
        found = stack.client.plan(digits, **ASKED)
        assert found["images_per_second"] > 0
        assert (found["measured"]["reason"], found["measured"].pop("cached")) == (None, False)
        assert found["steps"] == 2 * found["steps_per_epoch"] == 2 * (found["images"]["train"] // 32)
        if "machine_busy" not in {each["code"] for each in found["problems"]}:
            again = stack.client.plan(digits, **ASKED)
            assert again["measured"].pop("cached")
            assert again == found
            break
    assert [each["id"] for each in stack.client.jobs(limit=100)["data"]] == [each["id"] for each in jobs]


def test_the_command_line_shows_a_plan_and_saves_its_curve(resnetd, digits, tmp_path):
    settings = [f"--set={name}={value}" for name, value in ASKED["overrides"].items()]
    curve = tmp_path / "lr.svg"
    shown = resnetd("plan", digits, "--recipe", ASKED["recipe"], "--svg", str(curve), *settings)
    assert "75,002" in shown.stdout
    assert "learning rate" in shown.stdout
    assert "<svg" in curve.read_text()


def test_beside_a_training_nothing_is_measured(stack, digits):
    overrides = {**ASKED["overrides"], "epochs": 10_000}
    job = stack.client.train(digits, recipe=ASKED["recipe"], overrides=overrides)
    next(event for event in stack.client.events(job["id"]) if event.type == "progress")
    found = stack.client.plan(digits, recipe=ASKED["recipe"], overrides={"batch_size": 16})
    assert stack.client.job(job["id"])["state"] == "running"
    stack.client.cancel(job["id"])
    assert (found["measured"]["reason"], found["images_per_second"]) == ("device_busy", None)
    assert found["parameters"] > 0
    assert stack.client.wait(job["id"])["state"] == "cancelled"
