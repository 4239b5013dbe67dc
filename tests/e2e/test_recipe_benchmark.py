"""`benchmarks.recipes` in its small form: one epoch on a subset of Fashion-MNIST."""

from samples import mini_test_images

from benchmarks.recipes import served, told

TINY = {"epochs": 1, "warmup_epochs": 0.2, "batch_size": 32, "image_size": 16, "ema_decay": None, "precision": "fp32"}


def test_a_recipe_is_timed_from_its_submission_until_its_version_has_classified_an_image(stack, digits):
    job, first_answer = served(stack.client, digits, "fashion-mnist-small", TINY, image=next(mini_test_images()))
    figures = told(job, stack.client, first_answer=first_answer)
    assert figures["state"] == "succeeded"
    assert figures["seconds_to_first_answer"] == first_answer
    assert first_answer > job["seconds"] > figures["train_seconds"] > 0
    (version,) = stack.client.model("fashion-mnist-small")["versions"]
    assert version["version"] == job["result"]["version"]
