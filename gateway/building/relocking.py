"""Decides whether releases may be locked anew, while gateways may be serving them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping

from gateway.releases.lock import CONFIG, Lock, LockedRelease
from gateway.releases.manifest import Manifest

#: Instead of a release's name: all of them.
ALL = "all"
#: Verifies releases of a model against a lock that is not written yet; returns, for each that may
#: not be served, the reason.
Verify = Callable[[str, Collection[str], Lock], Awaitable[list[str]]]


async def refusals(
    model: str,
    declared: Manifest,
    new: Mapping[str, LockedRelease],
    again: Collection[str],
    verify: Verify | None,
    say: Callable[[str], None],
) -> list[str]:
    """Return why the releases `again` may not be locked as they are in `new`; none if they may.

    Releases share `config.pbtxt`: if it changed, all of them have to be locked anew. Those that are
    loaded are verified as a gateway would verify them.
    """
    config = new[next(iter(again))].model.get(CONFIG)
    if left := [name for name, one in new.items() if one.model.get(CONFIG) != config]:
        together = f"lock them together by `gateway lock {model} --relock {ALL}`"
        return [f"{model}: {CONFIG} changed, and release {', '.join(left)} shares it: {together}"]
    if not (loaded := [name for name in declared.loaded if name in again]):
        return []
    if verify is None:
        return [f"{model}: release {', '.join(loaded)} is locked and cannot be verified here"]
    say(f"verifying {model}, release {', '.join(loaded)}")
    found = await verify(model, loaded, Lock(dict(new)))
    return [f"{model}, {reason}; all locks of {model} stay as they were" for reason in found]
