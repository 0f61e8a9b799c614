"""The catalogue as one thing: arrivals, jobs and deliveries over one database."""

from sqlalchemy import func, select

from dicom_node.catalogue.arrivals import Arrivals
from dicom_node.catalogue.database import Database
from dicom_node.catalogue.deliveries import Deliveries
from dicom_node.catalogue.jobs import Jobs
from dicom_node.catalogue.schema import jobs


class Catalogue:
    """Opens the catalogue at `url`; `migrate` brings its schema up to date first.

    `name` identifies this process among the node's listeners. Raises CatalogueUnavailable.
    """

    def __init__(self, url: str, *, name: str = "listener", migrate: bool = True) -> None:
        self._database = Database(url)
        if migrate:
            self._database.migrate()
        else:
            self._database.require_current()
        self.arrivals = Arrivals(self._database, name)
        self.jobs = Jobs(self._database)
        self.deliveries = Deliveries(self._database)

    def counts(self) -> dict[str, int]:
        """How many jobs are in each state."""
        with self._database.read() as connection:
            rows = connection.execute(select(jobs.c.state, func.count()).group_by(jobs.c.state))
            return {str(state): int(count) for state, count in rows}

    def close(self) -> None:
        """Closes every connection."""
        self._database.close()
