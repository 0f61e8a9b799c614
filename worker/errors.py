"""The error tree of `worker`.

WorkerError
├── EngineUnavailable     an engine is not installed, not allowed, or cannot open the network here
├── EngineFailed          an engine that was open could not run a window, or gave scores that are no numbers
├── NoModelAccepts        no installed model takes any series of the study
├── AcceptanceFailed      a package's acceptance case did not pass on this machine
└── StageFailed           the demonstration or a command could not finish a stage
"""

from models.errors import SegnodeError


class WorkerError(SegnodeError):
    """A job could not be run."""


class EngineUnavailable(WorkerError):
    """No inference engine can run the network on this machine."""

    remedy = "`segnode models verify` tries each engine and says what is wrong."


class EngineFailed(WorkerError):
    """The inference engine failed while it ran."""

    remedy = "`segnode models verify` runs the package's acceptance case; another engine can be pinned."


class NoModelAccepts(WorkerError):
    """No installed model takes any series of the study."""

    remedy = "`segnode models show` lists what a model accepts."


class AcceptanceFailed(WorkerError):
    """The model's acceptance case did not pass on this machine, so the model stays out of use."""


class StageFailed(WorkerError):
    """A stage of the run did not finish."""
