"""Loads, unloads and describes models on a Triton server."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from tritonclient.utils import InferenceServerException

from gateway.triton.channel import Server
from gateway.triton.configs import Configs, FileStamps

#: Timeouts in seconds: of health and index calls, and of loading one model.
PROBE_TIMEOUT = 2.0
LOAD_TIMEOUT = 300.0
#: Seconds before a load that failed is tried again while calls wait for it.
AGAIN_PAUSE = 0.5
#: Numbers loads, over all servers: one that comes back at an address has had none of these.
_LOADS = itertools.count(1)


class ModelVersion(NamedTuple):
    """One version of a model: the model's name and Triton's number."""

    model: str
    number: int


#: Digests of a model version's files, by path.
Files = Mapping[str, str]
#: Name → Triton's dtype ("FP32") and the dims of one row.
Tensors = dict[str, tuple[str, tuple[int, ...]]]


class LoadedVersion(NamedTuple):
    """A model version as one server has it.

    `load` numbers its loads: a reload changes it. `files` are the digests of the files that it was
    loaded from; empty if they changed meanwhile.
    """

    inputs: Tensors
    outputs: Tensors
    max_batch_size: int
    instances: int
    load: int
    files: Files


class ModelControl:
    """One server's model control. All raise InferenceServerException.

    `digest` reads the digests of a version's files.
    """

    def __init__(
        self, server: Server, configs: Configs, digest: Callable[[ModelVersion], Files]
    ) -> None:
        self._server = server
        self._client = server.client()
        self._configs = configs
        self._digest = digest

    def stamps(self, model: str) -> FileStamps:
        """Return what tells whether the files of a model have changed."""
        return self._configs.stamps(model)

    async def reconnect(self) -> None:
        """Connect anew; calls in progress fail."""
        old, self._client = self._client, self._server.client()
        await old.close()

    async def close(self) -> None:
        """Close the channel."""
        await self._client.close()

    async def ready(self) -> set[ModelVersion]:
        """Return the versions that the server calls ready."""
        index = await self._client.get_model_repository_index(
            as_json=True, client_timeout=PROBE_TIMEOUT
        )
        return {
            ModelVersion(entry["name"], int(entry["version"]))
            for entry in index.get("models", ())
            if entry.get("state") == "READY" and entry.get("version", "").isdigit()
        }

    async def answered(self) -> dict[ModelVersion, int]:
        """Return the number of rows that each version has answered since it was loaded."""
        found = await self._client.get_inference_statistics(client_timeout=PROBE_TIMEOUT)
        return {
            ModelVersion(item.name, int(item.version)): item.inference_count
            for item in found.model_stats
        }

    async def serve(
        self, model: str, wanted: Mapping[ModelVersion, Files], serving: set[ModelVersion]
    ) -> dict[ModelVersion, LoadedVersion]:
        """Load the wanted versions of a model that are not served, and describe all wanted ones.

        A version that is already served counts as loaded from the wanted files. Raises ConfigError.
        """
        files = dict(wanted)
        if missing := wanted.keys() - serving:
            numbers = {n for m, n in wanted.keys() | serving if m == model}
            files |= await self.load(model, numbers, new=[n for _, n in missing])
        return {v: await self.describe(v, files[v]) for v in sorted(wanted)}

    async def serve_again(
        self, model: str, wanted: Mapping[ModelVersion, Files], serving: set[ModelVersion]
    ) -> dict[ModelVersion, LoadedVersion]:
        """As `serve`, and once more if that fails: for a model that calls are waiting for.

        Another gateway may have unloaded it in the same moment, and for the same reason.
        """
        try:
            return await self.serve(model, wanted, serving)
        except InferenceServerException:
            await asyncio.sleep(AGAIN_PAUSE)
            return await self.serve(model, wanted, await self.ready())

    async def load(
        self, model: str, numbers: set[int], new: Iterable[int]
    ) -> dict[ModelVersion, Files]:
        """Load exactly these versions, with the model's own configuration otherwise.

        Returns the files that the `new` ones were loaded from. Raises ConfigError.
        """
        versions = [ModelVersion(model, number) for number in new]
        before = await asyncio.to_thread(self._digests, versions)
        config = await asyncio.to_thread(self._configs.with_versions, model, numbers)
        await self._client.load_model(model, config=config, client_timeout=LOAD_TIMEOUT)
        after = await asyncio.to_thread(self._digests, versions)
        return {
            version: found if after[version] == found else {} for version, found in before.items()
        }

    async def unload(self, model: str) -> None:
        """Unload all versions of a model; requests in progress still finish."""
        await self._client.unload_model(model, client_timeout=PROBE_TIMEOUT)

    async def describe(self, version: ModelVersion, files: Files) -> LoadedVersion:
        """Describe a version that was loaded from these files."""
        model, number = version
        if not await self._client.is_model_ready(model, str(number), client_timeout=PROBE_TIMEOUT):
            raise InferenceServerException(f"Triton does not serve version {number}")
        metadata = await self._client.get_model_metadata(
            model, str(number), client_timeout=PROBE_TIMEOUT
        )
        config = (
            await self._client.get_model_config(model, str(number), client_timeout=PROBE_TIMEOUT)
        ).config
        batched = config.max_batch_size > 0
        return LoadedVersion(
            inputs=_tensors(metadata.inputs, batched=batched),
            outputs=_tensors(metadata.outputs, batched=batched),
            max_batch_size=config.max_batch_size,
            instances=sum(g.count * max(1, len(g.gpus)) for g in config.instance_group),
            load=next(_LOADS),
            files=files,
        )

    def _digests(self, versions: Iterable[ModelVersion]) -> dict[ModelVersion, Files]:
        return {version: self._digest(version) for version in versions}


def _tensors(found: Iterable[Any], *, batched: bool) -> Tensors:
    return {item.name: (item.datatype, tuple(item.shape)[int(batched) :]) for item in found}
