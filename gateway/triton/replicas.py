"""The replicas of a pool: those that the setting names, and those that DNS names at present."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence

import structlog

from gateway.errors import GatewayError
from gateway.triton.replica import Replica
from gateway.triton.watch import Watch

log = structlog.get_logger(__name__)

#: An endpoint that begins so is a name: each of its addresses is a replica.
DNS = "dns:"
#: Seconds between two look-ups of a name, and that one may take.
LOOK_UP_PAUSE, LOOK_UP_SECONDS = 3.0, 5.0
#: Most seconds that the calls in progress of a replica that has gone from DNS may take.
DRAIN_SECONDS = 60.0

#: Looks up the addresses of a host; raises OSError.
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


async def resolve(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a host, as the system's resolver knows them. Raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return sorted({str(address[0]) for *_, address in found})


class Replicas:
    """Keeps `replicas` (one list, changed in place) and watches each.

    `make` makes the replica of an endpoint, which may be an address of the host given beside it,
    and its watch. `unresolved` has the names that cannot be looked up now, with the reason: their
    replicas stay as they were.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        make: Callable[[str, str | None], tuple[Replica, Watch]],
        look_up: Resolve = resolve,
    ) -> None:
        self.replicas: list[Replica] = []
        self.unresolved: dict[str, str] = {}
        self._make = make
        self._look_up = look_up
        self._names = [endpoint for endpoint in endpoints if endpoint.startswith(DNS)]
        self._of_name: dict[str, set[str]] = {name: set() for name in self._names}
        self._fixed = {endpoint for endpoint in endpoints if endpoint not in self._names}
        self._watches: dict[Replica, Watch] = {}
        self._tasks: dict[Replica, asyncio.Task[None]] = {}
        self._following: list[asyncio.Task[None]] = []
        self._leaving: set[asyncio.Task[None]] = set()
        for endpoint in dict.fromkeys(endpoints):
            if endpoint in self._fixed:
                self._add(endpoint)

    def start(self) -> None:
        """Start to watch the replicas, and to follow the names."""
        for replica, watch in self._watches.items():
            self._tasks[replica] = asyncio.create_task(watch.run())
        self._following = [asyncio.create_task(self._follow(name)) for name in self._names]

    async def close(self) -> None:
        """Stop watching and close the channels."""
        tasks = [*self._following, *self._leaving, *self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(replica.close() for replica in self.replicas))

    def note(self, replica: Replica, error: GatewayError) -> None:
        """Look at a replica now, since a call to it has failed."""
        if watch := self._watches.get(replica):
            watch.note(error)

    async def _follow(self, name: str) -> None:
        host, port = _split(name)
        while True:
            try:
                async with asyncio.timeout(LOOK_UP_SECONDS):
                    addresses = await self._look_up(host, port)
                if not addresses:
                    raise OSError("it has no addresses")  # noqa: TRY301
            except (OSError, UnicodeError) as error:  # a timeout is an OSError
                reason = f"cannot be looked up: {error or 'no answer'}"
                if name not in self.unresolved:
                    log.warning("replicas not looked up", name=name, reason=reason)
                self.unresolved[name] = reason
            else:
                self.unresolved.pop(name, None)
                self._of_name[name] = {
                    f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
                    for address in addresses
                }
                self._adjust()
            await asyncio.sleep(LOOK_UP_PAUSE)

    def _adjust(self) -> None:
        """Add the replicas that are new, and let those go that nothing names any more."""
        wanted = self._fixed.union(*self._of_name.values())
        for replica in [replica for replica in self.replicas if replica.endpoint not in wanted]:
            self.replicas.remove(replica)
            leaving = asyncio.create_task(self._let_go(replica))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)
        for endpoint in sorted(wanted - {replica.endpoint for replica in self.replicas}):
            replica = self._add(endpoint)
            self._tasks[replica] = asyncio.create_task(self._watches[replica].run())

    def _add(self, endpoint: str) -> Replica:
        names = (name for name, endpoints in self._of_name.items() if endpoint in endpoints)
        name = None if endpoint in self._fixed else next(names)
        replica, watch = self._make(endpoint, name and _split(name)[0])
        self.replicas.append(replica)
        self._watches[replica] = watch
        log.info("replica added", replica=endpoint)
        return replica

    async def _let_go(self, replica: Replica) -> None:
        """Close a replica that gets no new calls, once those in progress have ended."""
        log.info("replica removed", replica=replica.endpoint)
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while replica.inference.in_flight and replica.up:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        except TimeoutError:
            log.warning("calls cut off", replica=replica.endpoint)
        finally:
            del self._watches[replica]
            task = self._tasks.pop(replica)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            replica.forget()
            await replica.close()


def _split(name: str) -> tuple[str, int]:
    """Split `dns:name:port`."""
    host, _, port = name.removeprefix(DNS).rpartition(":")
    return host, int(port)
