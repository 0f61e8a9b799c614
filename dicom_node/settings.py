"""One frozen Settings, read once from `segnode.toml` and `SEGNODE_*` environment variables."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from dicom_node.errors import SettingsInvalid
from models.toml import checked, read_toml


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class NodeSettings(_Section):
    """Who this node is and where it keeps everything."""

    name: str = "segnode"
    """Name of this node, for people."""
    ae_title: str = Field(default="SEGNODE", min_length=1, max_length=16)
    """AE title of this node, as called and as caller; at most 16 characters."""
    data: Path = Path("segnode-data")
    """Folder of the spool, the catalogue, the results and the quarantine; on a disk that honours fsync."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least level of the log lines, which are JSON on standard error."""


class ListenerSettings(_Section):
    """The C-STORE SCP."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0: every interface."""
    port: int = Field(default=11112, ge=0, le=65535)
    """TCP port; 104 needs the right to use it, 0 takes any free one."""
    allowed_calling_ae: tuple[str, ...] = ()
    """Calling AE titles that may connect; empty: all."""
    require_called_ae: bool = False
    """Refuse an association whose called AE title is not node.ae_title."""
    max_associations: int = Field(default=32, ge=1)
    """Associations open at the same time; one more is refused until another ends."""
    idle_timeout_s: float = Field(default=60.0, gt=0)
    """Seconds of silence after which an association is aborted."""
    max_object_gb: float = Field(default=4.0, gt=0)
    """Largest object that is taken, in GB."""
    min_free_gb: float = Field(default=5.0, ge=0)
    """Refuse objects (0xA700) when the data folder's disk has less free space than this."""


class CompletionSettings(_Section):
    """When a series counts as whole."""

    grace_s: float = Field(default=2.0, ge=0)
    """After a clean release with contiguous slices."""
    quiet_s: float = Field(default=30.0, gt=0)
    """Silence after which a series without better evidence counts as whole."""
    poll_s: float = Field(default=0.2, gt=0)
    """Seconds between two looks at the series that are being received."""


class CatalogueSettings(_Section):
    """The catalogue, which is the truth."""

    url: str = ""
    """SQLAlchemy URL; empty: SQLite in the data folder."""


class QueueSettings(_Section):
    """The broker, which is a hint."""

    broker: str = ""
    """`redis://...`, `rediss://...` or `redis+socket:///...`; empty: a folder under the data folder."""
    longest_job_s: float = Field(default=3600.0, gt=0)
    """Seconds that the longest job may take; a broker keeps a taken message for twice as long."""
    resubmit_s: float = Field(default=2.0, gt=0)
    """How long a queued job may stay unclaimed with an empty broker before it is submitted again."""


class WorkerSettings(_Section):
    """The workers that segment and deliver."""

    engine: Literal["auto", "openvino", "onnxruntime"] = "auto"
    """Inference engine; auto: the first that the model allows and that works on this machine."""
    threads: int = Field(default=0, ge=0)
    """CPU threads of the engine; 0: all cores."""
    lease_s: float = Field(default=15.0, gt=0)
    """Seconds without a sign of life after which a worker loses its job to another."""
    max_attempts: int = Field(default=3, ge=1)
    """Starts of one job before it is set aside as FAILED (it may be what kills the workers)."""
    deliver_threads: int = Field(default=4, ge=1)
    """Jobs delivered at the same time by one delivering worker."""


class ModelSettings(_Section):
    """Which model packages may run."""

    folders: tuple[Path, ...] = ()
    """Folders with model packages besides the shipped ones."""
    enabled: tuple[str, ...] = ("ct-lungs",)
    """Names of the models that run; a series that none of them accepts is skipped."""


class DestinationSettings(_Section):
    """Where results go: a PACS by C-STORE, an origin server by STOW-RS, or a folder."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,40}$")
    """Name of the destination in job records; letters, digits, _ and -."""
    kind: Literal["c-store", "stow-rs", "folder"]
    """How objects get there: C-STORE, STOW-RS or files in a folder."""
    host: str = ""
    """c-store: address of the PACS."""
    port: int = Field(default=104, ge=1, le=65535)
    """c-store: port of the PACS."""
    ae_title: str = ""
    """c-store: AE title of the PACS."""
    url: str = ""
    """stow-rs: DICOMweb base URL; `/studies` is added."""
    username: str = ""
    """stow-rs: user name for HTTP basic authentication; empty: none."""
    password_file: Path | None = None
    """stow-rs: file that holds the password and nothing else."""
    path: Path | None = None
    """folder: where the files go."""
    objects: tuple[Literal["SEG", "SR"], ...] = ("SEG", "SR")
    """Kinds of objects that this destination gets."""
    timeout_s: float = Field(default=60.0, gt=0)
    """Seconds to wait for an answer."""
    give_up_days: float = Field(default=14.0, gt=0)
    """Days after which a delivery that keeps failing is given up and the job is FAILED."""

    @model_validator(mode="after")
    def _complete(self) -> "DestinationSettings":
        wanted = {"c-store": ("host", "ae_title"), "stow-rs": ("url",), "folder": ("path",)}[self.kind]
        missing = [name for name in wanted if not getattr(self, name)]
        if missing:
            raise ValueError(f"a {self.kind} destination needs {' and '.join(missing)}")
        if self.kind == "stow-rs" and not self.url.startswith(("http://", "https://")):
            raise ValueError("url must begin with http:// or https://")
        return self


class Settings(BaseSettings):
    """Everything that can be configured. `SEGNODE_LISTENER__PORT=104` overrides `[listener] port`."""

    model_config = SettingsConfigDict(
        env_prefix="SEGNODE_", env_nested_delimiter="__", frozen=True, extra="forbid"
    )

    node: NodeSettings = NodeSettings()
    listener: ListenerSettings = ListenerSettings()
    completion: CompletionSettings = CompletionSettings()
    catalogue: CatalogueSettings = CatalogueSettings()
    queue: QueueSettings = QueueSettings()
    worker: WorkerSettings = WorkerSettings()
    models: ModelSettings = ModelSettings()
    destinations: tuple[DestinationSettings, ...] = ()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment goes before the file, the file before the defaults."""
        return env_settings, init_settings

    @model_validator(mode="after")
    def _unique_destinations(self) -> "Settings":
        names = [destination.name for destination in self.destinations]
        if len(set(names)) != len(names):
            raise ValueError("two destinations have the same name")
        return self

    @property
    def spool(self) -> Path:
        """Folder of the received objects."""
        return self.node.data / "spool"

    @property
    def results(self) -> Path:
        """Folder of the objects that segnode wrote."""
        return self.node.data / "results"

    @property
    def quarantine(self) -> Path:
        """Folder of received bytes that could not be parsed."""
        return self.node.data / "quarantine"

    @property
    def catalogue_url(self) -> str:
        """SQLAlchemy URL of the catalogue."""
        return self.catalogue.url or f"sqlite:///{(self.node.data / 'catalogue.db').resolve()}"

    @property
    def broker_url(self) -> str:
        """URL of the broker; `filesystem://` is kombu's transport over a folder."""
        return self.queue.broker or "filesystem://"


def load_settings(path: Path | None = None) -> Settings:
    """Reads the configuration; raises SettingsInvalid naming each wrong key.

    Without a path it takes `segnode.toml` of the current folder if there is one. Relative paths in a file
    are relative to that file's folder.
    """
    file = path or Path("segnode.toml")
    data = read_toml(file, SettingsInvalid)[0] if path or file.is_file() else {}
    settings = checked(Settings, data, file, SettingsInvalid)
    return _anchored(settings, file.resolve().parent)


def _anchored(settings: Settings, folder: Path) -> Settings:
    """Makes every configured path absolute."""
    node = settings.node.model_copy(update={"data": folder / settings.node.data})
    models = settings.models.model_copy(
        update={"folders": tuple(folder / item for item in settings.models.folders)}
    )
    destinations = tuple(
        item.model_copy(update={name: folder / value for name in ("path", "password_file")
                                if (value := getattr(item, name)) is not None})
        for item in settings.destinations
    )  # fmt: skip
    return settings.model_copy(update={"node": node, "models": models, "destinations": destinations})
