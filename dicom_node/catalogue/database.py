"""Opens the catalogue's database: SQLite in WAL mode by default, PostgreSQL by URL."""

import fcntl
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from threading import Lock
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, Table, create_engine, event, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.sql.dml import Insert

from dicom_node.errors import CatalogueUnavailable

_BUSY_S = 30.0


class Database:
    """Connections to the catalogue.

    `write()` is one transaction: everything in it is durable when the block ends, or nothing is. SQLite
    takes the write lock at once (BEGIN IMMEDIATE), fairly among the threads of this process, and syncs each
    commit to disk. `read()` sees the last committed state. Raises CatalogueUnavailable.
    """

    def __init__(self, url: str) -> None:
        self.url = make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._lock: AbstractContextManager[object] = Lock() if self.is_sqlite else nullcontext()
        self._engine = _engine(url, is_sqlite=self.is_sqlite)
        self._reader = self._engine.execution_options(isolation_level="AUTOCOMMIT")

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that may change the catalogue."""
        with self._translated(), self._lock, self._engine.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection that only looks."""
        with self._translated(), self._reader.connect() as connection:
            yield connection

    def insert_once(self, table: Table) -> Insert:
        """An INSERT that does nothing where the row is there already."""
        if self.is_sqlite:
            return sqlite.insert(table).on_conflict_do_nothing()
        return postgresql.insert(table).on_conflict_do_nothing()

    def migrate(self) -> None:
        """Brings the schema to the version of this program; several processes may call it at once."""
        with self._translated(), self._migration_lock(), self._engine.connect() as connection:
            if schema_version(connection) != _script().get_current_head():
                config = _config()
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
                connection.commit()

    def require_current(self) -> None:
        """Raises CatalogueUnavailable where the schema is not that of this program."""
        with self.read() as connection:
            found = schema_version(connection)
        wanted = _script().get_current_head()
        if found != wanted:
            raise CatalogueUnavailable(
                f"The catalogue's schema is {found or 'empty'}, this program needs {wanted}.",
                remedy="Start `segnode run` once to upgrade it.",
            )

    def close(self) -> None:
        """Closes every connection."""
        self._engine.dispose()

    @contextmanager
    def _migration_lock(self) -> Iterator[None]:
        if not self.is_sqlite:
            yield  # PostgreSQL's DDL is transactional and Alembic's version row is locked
            return
        folder = Path(str(self.url.database)).parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / "catalogue.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise CatalogueUnavailable(
                f"The folder of the catalogue cannot be used: {error.strerror}.",
                remedy="node.data in segnode.toml must name a folder that this user may write.",
            ) from error

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise CatalogueUnavailable(f"The catalogue does not work: {error.orig}.") from error
        except SQLAlchemyError as error:
            raise CatalogueUnavailable(f"The catalogue does not work: {type(error).__name__}.") from error


def _engine(url: str, *, is_sqlite: bool) -> Engine:
    try:
        if not is_sqlite:
            return create_engine(url, pool_pre_ping=True)
        engine = create_engine(url, connect_args={"timeout": _BUSY_S}, pool_size=20)
    except ImportError as error:
        raise CatalogueUnavailable(
            "The driver for PostgreSQL is not installed.", remedy="pip install 'segnode[postgres]'"
        ) from error

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def schema_version(connection: Connection) -> str | None:
    """The schema's revision, None for an empty database."""
    return MigrationContext.configure(connection).get_current_revision()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def _script() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())
