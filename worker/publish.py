"""From a finished process's artifact to what others can use: a dataset, a model version and its alias, or files."""

from pathlib import Path
from typing import Any

from jobs.answers import Claim
from jobs.model import Kind
from models import checkpoint_files
from models.catalog import Catalog
from store import artifacts, datasets
from store.files import remove_tree
from store.layout import Layout


def publish(claim: Claim, layout: Layout, result: dict[str, Any]) -> dict[str, Any]:
    """Make the artifact public and say where it is: the job's `result`. Done twice, it says the same."""
    artifact = layout.job(claim.job_id) / result["artifact"]
    if claim.kind is Kind.IMPORT:
        dataset_id = claim.spec["dataset"]
        datasets.publish(artifact, layout.dataset(dataset_id))
        return {"dataset": dataset_id}
    if claim.kind in (Kind.EVALUATE, Kind.EXPORT):
        return _files(claim, artifact.parent, result)
    name, alias = claim.spec.get("register_as"), claim.spec.get("alias")
    outcome: dict[str, Any] = {"metrics": result["metrics"]}
    if name is not None:
        catalog = Catalog(layout.models)
        version = catalog.publish(name, artifact, claim.job_id)
        if alias is not None:
            catalog.advance_alias(name, alias, version)
        outcome |= {"model": name, "version": version, "weights_sha256": catalog.manifest(name, version).weights_sha256}
        remove_tree(artifact)  # the catalog has it
    outcome |= _made(artifact.parent)
    if claim.kind is Kind.ADOPT:
        (layout.job(claim.spec["upload"]) / datasets.UPLOAD).unlink(missing_ok=True)
    checkpoint_files.forget(layout.job(claim.job_id))  # nobody goes on from them: the job can only succeed now
    return outcome


def is_public(claim: Claim, layout: Layout) -> bool:
    """Whether others can see anything of the job's result already."""
    if claim.kind is Kind.IMPORT:
        return (layout.dataset(claim.spec["dataset"]) / datasets.DESCRIPTOR).exists()
    name = claim.spec.get("register_as") if claim.kind in (Kind.TRAIN, Kind.ADOPT) else None
    return name is not None and Catalog(layout.models).made_by(name, claim.job_id) is not None


def _files(claim: Claim, claim_dir: Path, result: dict[str, Any]) -> dict[str, Any]:
    """What an evaluation or an export says of itself. Its files stay where the claim that made them has them."""
    name, _, version = claim.spec["model"].partition("@")
    on: dict[str, Any] = {key: claim.spec[key] for key in ("dataset", "split") if key in claim.spec}
    for kept in claim_dir.parent.glob("claim-*/logits-*"):  # an evaluation's, which nobody resumes any more
        kept.unlink(missing_ok=True)
    return {"model": name, "version": int(version), **on, "metrics": result["metrics"], **_made(claim_dir)}


def _made(claim_dir: Path) -> dict[str, Any]:
    """Which claim's files can be downloaded, and each of them; nothing where there are none."""
    files = [each.model_dump() for each in artifacts.listed(claim_dir)]
    return {"claim": int(claim_dir.name.removeprefix("claim-")), "artifacts": files} if files else {}
