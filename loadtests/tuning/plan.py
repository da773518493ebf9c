"""Threads over all models of a repository: who asks for how many, and do the cores suffice."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from loadtests.tuning import placement
from loadtests.tuning.candidates import TuningError, conflict, torch_threads
from loadtests.tuning.placement import Placed
from loadtests.tuning.ranking import aligned


class Share(NamedTuple):
    """Instances of a model and threads of each."""

    instances: int
    threads: int

    @property
    def product(self) -> int:
        """The cores that it takes when busy."""
        return self.instances * self.threads

    def __str__(self) -> str:
        return f"{self.instances} × {self.threads}"


def models(repository: Path) -> list[Placed]:
    """Read every model's configuration, sorted. Raises ConfigError."""
    return [placement.read(path.parent) for path in sorted(repository.glob(f"*/{placement.FILE}"))]


def conflicts(models: Sequence[Placed]) -> list[str]:
    """Name the TorchScript models that want different threads of one LibTorch."""
    found = torch_threads(models)
    return [
        conflict(one, found[one], other, found[other])
        for one, other in itertools.combinations(found, 2)
        if found[one] != found[other]
    ]


def shares(models: Sequence[Placed], default_threads: int) -> dict[str, Share]:
    """Return what each model takes; `default_threads` are those of one that names none."""
    return {
        model.model: Share(model.placement.instances, model.placement.threads or default_threads)
        for model in models
    }


def fitted(shares: Mapping[str, Share], cores: int) -> dict[str, Share]:
    """Cut shares until their sum fits the cores, or each is 1 × 1.

    Threads give before instances, of which so many with one thread each do more; and of either
    the largest share gives first.
    """
    found = dict(shares)
    while found and sum(share.product for share in found.values()) > cores:
        largest = max(found, key=lambda name: (found[name].threads > 1, found[name].product))
        instances, threads = found[largest]
        if threads > 1:
            found[largest] = Share(instances, threads - 1)
        elif instances > 1:
            found[largest] = Share(instances - 1, threads)
        else:
            break
    return found


def lines(
    models: Sequence[Placed], busy: Collection[str], cores: int, default_threads: int
) -> list[str]:
    """Return the plan to print. `busy` are the models at work at once; none named means all.

    Raises TuningError for a name that is no model's.
    """
    every = shares(models, default_threads)
    if unknown := sorted(set(busy) - every.keys()):
        raise TuningError(f"no model {unknown[0]} in the repository")
    together = {name: share for name, share in every.items() if not busy or name in busy}
    wanted = fitted(together, cores)
    rows = [("model", "backend", "instances × threads", "cores when busy", "")]
    for model in models:
        share = every[model.model]
        notes = []
        if model.model in wanted and wanted[model.model] != share:
            notes.append(f"→ {wanted[model.model]}")
        if model.placement.threads is None:
            notes.append("names no threads")
        if not model.on_cpu:
            notes.append("on GPUs: its cores are not counted rightly")
        rows.append((model.model, model.backend, str(share), str(share.product), ", ".join(notes)))
    asked, left = (sum(s.product for s in found.values()) for found in (together, wanted))
    who = "these models" if busy else "all models"
    told = [*aligned(rows), f"{who} busy at the same moment ask for {asked} of {cores} cores."]
    if asked <= cores:
        return [*told, "The cores suffice."]
    told.append(
        "Models that take turns do no harm; those busy at once would wait for each other's threads."
    )
    if not busy:
        told.append("Name those that are with --busy MODEL,… to plan for them alone.")
    if left > cores:
        told.append(
            f"Even at 1 × 1 they ask for {left} cores: more cores, or another host, would help."
        )
    if wanted != together:
        told.append(
            "→ is what would fit best: edit config.pbtxt, or `gateway tune MODEL --cores N`."
        )
    return told
