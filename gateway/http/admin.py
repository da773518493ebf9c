"""`/admin/models/…`: change a model's traffic, shadow and loaded releases; roll back; history.

Each change is an edit of the model's `releases.toml` (`releases/rollout.py`), made in a thread. All
gateways that watch the file follow, including this one, which is waited for.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from gateway_preprocessor import JSON
from tornado.httputil import HTTPServerRequest
from tornado.web import RequestHandler

from gateway.control.reconciler import Reconciler
from gateway.control.states import EffectState
from gateway.errors import Forbidden, RolloutRefused, Unauthorized, UnknownModel, public
from gateway.http.base import SMALL, Bodied
from gateway.http.envelope import document
from gateway.http.models import shown
from gateway.releases import history, manifest, rollout
from gateway.releases.manifest import Compare, Manifest
from gateway.settings import Settings

#: The author of these changes in the history.
WHO = "admin"
#: Headers that reveal a proxy, whose address says nothing about the client's.
FORWARDED = ("Forwarded", "Via", "X-Forwarded-For", "X-Real-Ip")


class Promote(msgspec.Struct, forbid_unknown_fields=True):
    """`{"release": "2"}`."""

    release: str

    def apply(self, folder: Path) -> Manifest:
        """Send all traffic to the release."""
        return rollout.promote(folder, self.release, WHO)


class Traffic(msgspec.Struct, forbid_unknown_fields=True):
    """`{"weights": {"1": 90, "2": 10}}`."""

    weights: dict[str, int]

    def apply(self, folder: Path) -> Manifest:
        """Split the traffic."""
        return rollout.traffic(folder, self.weights, WHO)


class Shadow(msgspec.Struct, forbid_unknown_fields=True):
    """`{"release": "2", "share": 0.5, "compare": "preprocessor"}`; a null release stops it."""

    release: str | None
    share: float = 1.0
    compare: Compare = "release"

    def apply(self, folder: Path) -> Manifest:
        """Start, change or stop the shadow."""
        return rollout.shadow(folder, self.release, WHO, self.share, self.compare)


class Rollback(msgspec.Struct, forbid_unknown_fields=True):
    """`{}`."""

    def apply(self, folder: Path) -> Manifest:
        """Restore the traffic before the last change."""
        return rollout.rollback(folder, WHO)


class Load(msgspec.Struct, forbid_unknown_fields=True):
    """`{"release": "1"}`."""

    release: str

    def apply(self, folder: Path) -> Manifest:
        """Load the release."""
        return rollout.load(folder, self.release, WHO)


class Unload(msgspec.Struct, forbid_unknown_fields=True):
    """`{"release": "1"}`."""

    release: str

    def apply(self, folder: Path) -> Manifest:
        """Unload the release; it stays declared."""
        return rollout.unload(folder, self.release, WHO)


#: Seconds that a change waits to be in force, unless the client prefers otherwise, and the most.
WAIT_SECONDS, MOST_SECONDS = 10.0, 300.0
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?([0-9]{1,6})")
Form = Promote | Traffic | Shadow | Rollback | Load | Unload
FORMS: dict[str, type[Form]] = {
    "promote": Promote,
    "traffic": Traffic,
    "shadow": Shadow,
    "rollback": Rollback,
    "load": Load,
    "unload": Unload,
}


class Admin(Bodied):
    """Authorizes callers and finds the folders of models."""

    endpoint = "admin"
    limit = SMALL

    def initialize(self, settings: Settings) -> None:
        """Configure the handler (Tornado's hook)."""
        self._settings = settings

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Name the scheme with 401, as RFC 9110 requires."""
        if isinstance(kwargs.get("exc_info", (None, None))[1], Unauthorized):
            self.set_header("WWW-Authenticate", 'Bearer realm="gateway"')
        super().write_error(status_code, **kwargs)

    async def run(self, model: str, work: Callable[[Path], Any]) -> Any:
        """Run file operations on the folder of `model` in a thread.

        Raises Unauthorized, Forbidden, UnknownModel, RolloutRefused.
        """
        _admit(self.request, self._settings)
        repository = self._settings.repository
        served = await asyncio.to_thread(manifest.signature, repository, self._settings.models)
        if model not in served:
            raise UnknownModel(f"No model {model[:64]!r} is served; GET /models lists them.")
        self.model = model
        try:
            return await asyncio.to_thread(work, repository / model)
        except rollout.RolloutError as error:
            raise RolloutRefused(f"Model {model!r}: {public(str(error))}.") from None


class Change(Admin):
    """`POST`: one change of one model."""

    def initialize(  # type: ignore[override]
        self, settings: Settings, form: type[Form], reconciler: Reconciler
    ) -> None:
        """Configure the handler (Tornado's hook)."""
        super().initialize(settings)
        self._reconciler = reconciler
        self._decoder: msgspec.json.Decoder[Form] = msgspec.json.Decoder(form)

    async def post(self, model: str) -> None:
        """Apply the change; answer 200 once it is in force here, else 202. Raises GatewayError."""
        seconds = self._seconds()
        edited, release = await self.run(model, self._apply)
        effect = await self._reconciler.settled(model, edited, seconds, release)
        if effect is None:
            reason = "this gateway has not read the change yet"
            told = {"state": EffectState.PENDING, "reasons": [reason], "remarks": []}
        else:
            told = shown(effect)
        if told["state"] is not EffectState.IN_FORCE:
            self.set_status(202)
        self.write_json(
            {
                "model": model,
                "traffic": effect.applied if effect else None,
                "declared_traffic": edited.traffic,
                "shadow": edited.shadow,
                "unloaded": sorted(edited.releases.keys() - edited.loaded.keys()),
                "effect": told,
            }
        )

    def _seconds(self) -> float:
        """Return how long to wait for the change to be in force (RFC 7240: `Prefer: wait=0`)."""
        found = _WAIT.search(self.request.headers.get("Prefer", ""))
        return min(float(found[1]), MOST_SECONDS) if found else WAIT_SECONDS

    def _apply(self, folder: Path) -> tuple[Manifest, str | None]:
        """Make the change; return the new manifest, and the release that it loads."""
        given = self.request.headers.get("Content-Type", JSON)
        form = document(given, self.body() or b"{}", self._decoder)
        return form.apply(folder), form.release if isinstance(form, Load) else None


class History(Admin):
    """`GET`: the last changes of one model."""

    async def get(self, model: str) -> None:
        """Answer the last changes, oldest first. Raises GatewayError."""
        self.write_json({"model": model, "history": await self.run(model, history.read)})


def routes(
    settings: Settings, reconciler: Reconciler
) -> list[tuple[str, type[RequestHandler], dict[str, Any]]]:
    """Return the routes of this module."""
    given = {"settings": settings, "reconciler": reconciler}
    return [
        *(
            (rf"/admin/models/([^/]+)/{name}", Change, {**given, "form": form})
            for name, form in FORMS.items()
        ),
        (r"/admin/models/([^/]+)/history", History, {"settings": settings}),
    ]


def _admit(request: HTTPServerRequest, settings: Settings) -> None:
    """Authorize callers that present the admin key or, if none is set, programs on this host.

    Never a page of another site in a browser on this host: it cannot send the key, and sends its
    own Origin or (DNS rebinding) its own Host. Raises Unauthorized, Forbidden.
    """
    origin = request.headers.get("Origin")
    if origin is not None and origin.partition("://")[2].lower() != request.host.lower():
        raise Forbidden("Pages of other sites may not use /admin.")
    if settings.admin_key is not None:
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        wanted = settings.admin_key.get_secret_value().encode()
        right = hmac.compare_digest(key.strip().encode("latin-1"), wanted)
        if scheme.lower() != "bearer" or not right:
            raise Unauthorized("Send the admin key as 'Authorization: Bearer <key>'.")
        return
    if any(name in request.headers for name in FORWARDED):
        raise Forbidden("No admin key is set: /admin does not answer through a proxy.")
    if not _is_loopback(request.remote_ip or ""):
        raise Forbidden("No admin key is set: /admin answers only on this host.")
    if request.host_name != "localhost" and not _is_loopback(request.host_name.strip("[]")):
        raise Forbidden("No admin key is set: use /admin through a loopback address.")


def _is_loopback(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
