"""Everything that one HTTP process holds: built once, at start, and handed to the routes."""

from dataclasses import dataclass

from app.auth import Gate
from app.drain import Drain
from app.inference.client import Engines
from app.inference.fleet import FleetClient
from app.metrics import Metrics
from app.schemas.job_views import JobBody
from app.services.admission import Admission, Limits
from app.services.adoptions import Adoptions
from app.services.aliases import Aliases
from app.services.artifacts import Artifacts
from app.services.bells import Bells
from app.services.classification import Classification
from app.services.dataset_uploads import DatasetUploads
from app.services.datasets import Datasets
from app.services.deletion import Deletion
from app.services.deliveries import DeliveryLogs
from app.services.explanation import Explanation
from app.services.figures import Figures
from app.services.inference_v2 import InferenceV2
from app.services.jobs import Jobs
from app.services.ledger import AsyncLedger
from app.services.model_versions import ModelVersions
from app.services.models import Models
from app.services.plans import Planning
from app.services.readiness import Readiness
from app.services.submissions import Submissions
from app.services.verbs import Verbs
from app.services.webhook_targets import Targets
from app.services.webhooks import Webhooks
from jobs.redis import url
from models.catalog import Catalog
from store.keys import KeyRing
from store.layout import Layout
from store.loopback import is_loopback
from store.settings import Settings


@dataclass(frozen=True)
class State:
    settings: Settings
    layout: Layout
    metrics: Metrics
    figures: Figures
    drain: Drain
    gate: Gate
    admission: Admission
    engines: Engines
    ledger: AsyncLedger
    classification: Classification
    explanation: Explanation
    inference_v2: InferenceV2
    datasets: Datasets
    uploads: DatasetUploads
    jobs: Jobs
    submissions: Submissions
    deletion: Deletion
    verbs: Verbs
    artifacts: Artifacts
    models: Models
    versions: ModelVersions
    aliases: Aliases
    adoptions: Adoptions
    readiness: Readiness
    bells: Bells
    planning: Planning
    deliveries: DeliveryLogs
    webhooks: Webhooks


def _limits(settings: Settings) -> Limits:
    whole = Limits(settings.max_requests, settings.max_requests_per_key, settings.max_held_bytes)
    return whole.share(settings.http_workers)


def build(settings: Settings, *, engines: Engines | None = None) -> State:
    """Everything from the settings. `engines`: another way to reach engines than through this machine's fleet."""
    layout = Layout(settings.data).create()
    redis_url = url(settings, layout)
    metrics = Metrics()
    drain = Drain()
    engines = engines or Engines(layout, settings)
    engines.asking.watch = metrics.versions.count
    engines.shadows.watch = metrics.versions.count_shadowed
    ledger = AsyncLedger(redis_url, most_unfinished=settings.max_unfinished_jobs)
    bells = Bells(redis_url, layout, retention_seconds=settings.job_retention_seconds)
    catalog = Catalog(layout.models)
    fleet = FleetClient(layout)
    models = Models(catalog, fleet)
    jobs = Jobs(ledger, layout, redis_url)
    datasets = Datasets(ledger, layout, jobs)
    deletion = Deletion(ledger, layout, catalog)
    targets = Targets.of(settings.webhook_hosts, loopback=is_loopback(settings.host))
    return State(
        settings=settings,
        layout=layout,
        metrics=metrics,
        figures=Figures(metrics, engines, jobs),
        drain=drain,
        gate=Gate(KeyRing(layout), keyless=is_loopback(settings.host)),
        admission=Admission(_limits(settings), tell=lambda reason: metrics.refused.labels(reason).inc()),
        engines=engines,
        ledger=ledger,
        classification=Classification(engines, timeout=settings.request_timeout_seconds),
        explanation=Explanation(engines, timeout=settings.request_timeout_seconds),
        inference_v2=InferenceV2(engines, fleet, models, catalog, settings),
        datasets=datasets,
        uploads=DatasetUploads(ledger, layout, datasets, ring=bells.ring),
        jobs=jobs,
        submissions=Submissions(ledger, datasets, catalog, targets, jobs, ring=bells.ring),
        deletion=deletion,
        verbs=Verbs(ledger, layout, datasets, jobs, deletion, catalog=catalog, ring=bells.ring),
        artifacts=Artifacts(jobs, layout),
        models=models,
        versions=ModelVersions(catalog, models, fleet, ledger, layout),
        aliases=Aliases(catalog),
        adoptions=Adoptions(ledger, layout, jobs, ring=bells.ring),
        readiness=Readiness(engines, ledger, drain),
        bells=bells,
        planning=Planning(ledger, datasets, catalog, tell=bells.ask_for_plan),
        deliveries=DeliveryLogs(ledger, jobs),
        webhooks=Webhooks(redis_url, targets, lambda job: JobBody.of(job, log=False).model_dump(mode="json")),
    )
