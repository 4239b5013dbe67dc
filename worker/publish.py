"""From a finished process's artifact to what others can use: a dataset, or a model version and its alias."""

from typing import Any

from jobs.ledger import Claim
from jobs.model import Kind
from models.catalog import Catalog
from store import datasets
from store.layout import Layout


def publish(claim: Claim, layout: Layout, result: dict[str, Any]) -> dict[str, Any]:
    """Make the artifact public and say where it is: the job's `result`. Done twice, it says the same."""
    artifact = layout.job(claim.job_id) / result["artifact"]
    if claim.kind is Kind.IMPORT:
        dataset_id = claim.spec["dataset"]
        datasets.publish(artifact, layout.dataset(dataset_id))
        return {"dataset": dataset_id}
    name, alias = claim.spec.get("register_as"), claim.spec.get("alias")
    outcome: dict[str, Any] = {"metrics": result["metrics"]}
    if name is not None:
        catalog = Catalog(layout.models)
        version = catalog.publish(name, artifact, claim.job_id)
        if alias is not None:
            catalog.set_alias(name, alias, version)
        outcome |= {"model": name, "version": version, "weights_sha256": catalog.manifest(name, version).weights_sha256}
    return outcome
