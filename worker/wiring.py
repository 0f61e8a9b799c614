"""The composition root: the one place where the parts of a node are chosen and put together."""

from collections.abc import Callable
from dataclasses import dataclass, field

from celery import Celery

from dicom_node.catalogue.store import Catalogue
from dicom_node.delivery.build import build_deliverer
from dicom_node.errors import DestinationRefused
from dicom_node.intake import Intake
from dicom_node.listener import NodeListener
from dicom_node.queue import CeleryQueue, JobQueue, make_app
from dicom_node.reconciler import Reconciler
from dicom_node.records import Deliverer
from dicom_node.settings import DestinationSettings, Settings
from dicom_node.spool import Spool
from models.registry import ModelPackage, Registry
from worker.engines.base import Engine
from worker.engines.choose import open_engine
from worker.leases import Slot, take_slot


@dataclass(frozen=True)
class Parts:
    """What a process of the node works with. `owner` names it in leases."""

    settings: Settings
    owner: str
    catalogue: Catalogue
    spool: Spool
    registry: Registry
    reconciler: Reconciler
    slot: Slot
    make_deliverer: Callable[[DestinationSettings, str], Deliverer] = build_deliverer
    _engines: dict[str, Engine] = field(default_factory=dict)

    def packages(self) -> list[ModelPackage]:
        """The enabled model packages."""
        return [self.registry.get(name) for name in self.settings.models.enabled]

    def engine(self, package: ModelPackage) -> Engine:
        """The open, warm engine of the package; opened once, after the package's digests were checked.

        Raises PackageDamaged, EngineUnavailable.
        """
        digest = package.manifest.digest
        if digest not in self._engines:
            self.registry.verify(package)
            worker = self.settings.worker
            self._engines[digest] = open_engine(package, worker.engine, worker.threads)
        return self._engines[digest]

    def destination(self, name: str) -> DestinationSettings:
        """The configured destination; raises DestinationRefused where it is configured no more."""
        for destination in self.settings.destinations:
            if destination.name == name:
                return destination
        raise DestinationRefused(f"The destination {name} is not configured any more.")

    def give_up_days(self, name: str) -> float:
        """How long deliveries to the destination are tried; not at all where it is configured no more."""
        return next((item.give_up_days for item in self.settings.destinations if item.name == name), 0.0)

    def deliverer(self, destination: DestinationSettings) -> Deliverer:
        """What sends to the destination."""
        return self.make_deliverer(destination, self.settings.node.ae_title)

    def close(self) -> None:
        """Closes engines and catalogue."""
        for engine in self._engines.values():
            engine.close()
        self.catalogue.close()


def build_parts(settings: Settings, role: str, queue: JobQueue | None = None) -> tuple[Parts, Celery]:
    """Puts a process of `role` together; what a dead process of the same slot held is released at once.

    Raises SettingsInvalid, CatalogueUnavailable.
    """
    slot = take_slot(settings.node.data / "locks", role)
    catalogue = Catalogue(settings.catalogue_url, name=slot.owner)
    app = make_app(settings)
    parts = Parts(
        settings=settings,
        owner=slot.owner,
        catalogue=catalogue,
        spool=Spool(settings.spool, settings.quarantine),
        registry=Registry(settings.models.folders),
        reconciler=Reconciler(settings, catalogue, queue or CeleryQueue(app)),
        slot=slot,
    )
    catalogue.jobs.release(owner=slot.owner, max_attempts=settings.worker.max_attempts)
    catalogue.deliveries.release(slot.owner)
    return parts, app


def build_listener(parts: Parts) -> tuple[NodeListener, Intake]:
    """The C-STORE SCP and the judge of completeness; associations of a dead predecessor are closed."""
    settings = parts.settings
    parts.catalogue.arrivals.close_lost()
    listener = NodeListener(settings.listener, settings.node.ae_title, parts.spool, parts.catalogue.arrivals)
    return listener, Intake(settings.completion, parts.catalogue)
