"""Which models of one server are to be unloaded and loaded because their calls fail, and how often.

A model is reloaded at once, then after pauses that double: while it stays bad, it is not a process
that has died but the model itself, or what it is sent.
"""

from __future__ import annotations

from gateway.triton.health import WINDOW, Health
from gateway.triton.pauses import Pauses

#: Seconds from one reload to the next at the earliest.
FIRST_PAUSE, LONGEST_PAUSE = 10.0, 600.0


class Mending:
    """Decides what is reloaded: `condemned` models are to be, with the reason.

    Without `reloads`, models that are dead or half dead are only named.
    """

    def __init__(self, health: Health, *, reloads: bool) -> None:
        self.condemned: dict[str, str] = {}
        self._health = health
        self._reloads = reloads
        self._pauses = Pauses(FIRST_PAUSE, LONGEST_PAUSE, WINDOW)

    @property
    def ailing(self) -> dict[str, str]:
        """The models that are dead or half dead, with the reason and what is done about it."""
        found = {}
        for version, record in self._health.broken().items():
            pause = self._pauses.left(version.model)
            then = f"next reload in {pause:.0f} s" if self._reloads else "reload it"
            found[version.model] = f"{record.verdict}: {record}; {then}"
        for model, reason in self.condemned.items():
            found[model] = f"{reason}; reloading it"
        return found

    def condemn(self) -> dict[str, str]:
        """Condemn what is dead or half dead, as often as is allowed; return what is new."""
        new = {}
        if self._reloads:
            for (model, _), record in self._health.broken().items():
                if model not in self.condemned and not self._pauses.left(model):
                    self._pauses.begin(model)
                    self.condemned[model] = new[model] = f"{record.verdict}: {record}"
        return new

    def mended(self, model: str) -> None:
        """Forget the calls of a model that has been loaded anew."""
        self._health.forget(model)

    def clear(self) -> None:
        """Forget all but the pauses: the server is down, and will have other processes."""
        self.condemned.clear()
        self._health.records.clear()
