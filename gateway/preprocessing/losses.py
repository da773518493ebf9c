"""How a worker can be lost, and what that means for the instances that it was working on."""

from __future__ import annotations

import asyncio
from typing import Any

#: The future that an instance's request waits for. Once it is done (answered, failed, cancelled,
#: or past its deadline), nobody needs the instance any more.
Wait = asyncio.Future[Any]


class WorkerLost(ConnectionError):
    """The worker died, hung or disconnected before it replied."""


class WorkerHung(WorkerLost):
    """The worker did not reply in time, and was killed for it."""


class BrokenOff(WorkerLost):
    """The worker lives, but ended the connection: its reply cannot be written down."""


class NotBegun(WorkerLost):
    """The worker was lost while it worked on an earlier call: this one is not to blame."""


class Poisonous(RuntimeError):
    """An instance that cost two workers, the second one alone; the text is for its sender."""


class Suspect(RuntimeError):
    """An instance of a call that cost a worker: it is asked again, alone.

    `answer` resolves to its outcome, as a call would have given it.
    """

    def __init__(self, answer: asyncio.Future[Any]) -> None:
        super().__init__("asked again alone")
        self.answer = answer
