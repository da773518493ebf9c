"""What a call to Triton has tried in vain, and where it may be tried again."""

from __future__ import annotations

from gateway.errors import GatewayError, InferenceFailed, ReleaseNotReady
from gateway.triton.model_control import ModelVersion
from gateway.triton.replica import Replica

#: Calls of one load that may fail to be made before its replica is given up. The second comes after
#: a look at the replica: it may be down, or somebody may be reloading the version.
CALLS = 2
#: Repetitions of a call that fails by the server's fault: a dead instance is soon free again, and
#: may well get the first one, too.
REPEATS = 2


class Attempts:
    """The failed attempts of one call: `failure` is the last one.

    A replica that could not take the call is given up after `CALLS`, unless it has loaded the
    version anew since. A call that failed by the server's fault is repeated: where one of several
    instances is dead, another one answers. Both go elsewhere if possible.
    """

    def __init__(self, version: ModelVersion) -> None:
        self.failure: GatewayError | None = None
        self._version = version
        self._calls: dict[tuple[Replica, int], int] = {}
        self._suspect: Replica | None = None
        self._repeats = 0
        self._last: Replica | None = None

    def add(self, replica: Replica, load: int, error: GatewayError) -> None:
        """Note a failed attempt on a load of the version; raises the error if it was the last."""
        self.failure = error
        self._last = replica
        if isinstance(error, InferenceFailed):
            if self._suspect:
                self._suspect.inference.health.same(self._version)
            self._repeats += 1
            if self._repeats > REPEATS or not error.repeatable:
                raise error
            self._suspect = replica
            return
        self._calls[replica, load] = self._calls.get((replica, load), 0) + 1
        if isinstance(error, ReleaseNotReady):
            replica.lose(self._version, load)

    def possible(self, replica: Replica) -> bool:
        """Whether the replica serves the version from a load that has not been given up."""
        loaded = replica.ready.get(self._version)
        return loaded is not None and self._calls.get((replica, loaded.load), 0) < CALLS

    def rest(self, able: list[Replica]) -> list[Replica]:
        """Return the replicas to try next."""
        possible = [replica for replica in able if self.possible(replica)]
        return [replica for replica in possible if replica is not self._last] or possible

    def succeeded(self) -> None:
        """Note that the call was answered: so a failure before that was the server's."""
        if self._suspect:
            self._suspect.inference.health.refuted(self._version)
