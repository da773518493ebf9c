"""What a call to Triton has tried in vain, and where it may be tried again."""

from __future__ import annotations

from gateway.errors import GatewayError, InferenceFailed, ReleaseNotReady
from gateway.triton.model_control import ModelVersion
from gateway.triton.replica import Replica


class Attempts:
    """The failed attempts of one call: `failure` is the last one.

    A replica that could not take the call is not asked again, unless it has loaded the version anew
    since. A call that failed by the server's fault is repeated once, elsewhere if possible: where
    one of several instances is dead, another one answers.
    """

    def __init__(self, version: ModelVersion) -> None:
        self.failure: GatewayError | None = None
        self._version = version
        self._unable: set[tuple[Replica, int]] = set()
        self._suspect: Replica | None = None

    def add(self, replica: Replica, load: int, error: GatewayError) -> None:
        """Note a failed attempt on a load of the version; raises the error if it was the last."""
        self.failure = error
        if isinstance(error, InferenceFailed):
            if self._suspect or not error.repeatable:
                raise error
            self._suspect = replica
            return
        self._unable.add((replica, load))
        if isinstance(error, ReleaseNotReady):
            replica.lose(self._version, load)

    def possible(self, replica: Replica) -> bool:
        """Whether the replica serves the version from a load that has not been tried in vain."""
        loaded = replica.ready.get(self._version)
        return loaded is not None and (replica, loaded.load) not in self._unable

    def rest(self, able: list[Replica]) -> list[Replica]:
        """Return the replicas to try next."""
        possible = [replica for replica in able if self.possible(replica)]
        return [replica for replica in possible if replica is not self._suspect] or possible

    def succeeded(self) -> None:
        """Note that the call was answered: so a failure before that was the server's."""
        if self._suspect:
            self._suspect.inference.health.refuted(self._version)
