"""The run: arms are started, compared with the reference, and measured in turns."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from loadtests.bench import models, results, rollout
from loadtests.bench.agreement import agree
from loadtests.bench.deployment import GATEWAYS, Deployment, deployed, described
from loadtests.bench.models import Models
from loadtests.bench.rounds import Measured, Rounds
from loadtests.bench.scenario import MINILM, Scenario
from loadtests.bench.windows import Corpus
from loadtests.load import corpus
from loadtests.load.limit import Limit

TEXTS, QUICK_TEXTS = 2000, 370
START = "From nothing to the first right answer"


class Bench:
    """One run; `folder` holds what it writes, `built` the models, which outlast it.

    `measured` is called whenever there is more to write.
    """

    def __init__(
        self,
        folder: Path,
        built: Path,
        say: Callable[[str], None],
        measured: Callable[[Bench], None],
        texts: int = TEXTS,
    ) -> None:
        self._folder = folder
        self._built = built
        self._say = say
        self._measured = measured
        self._count = texts
        self._numbers = itertools.count()
        self._starts: dict[bool, list[results.Window]] = {False: [], True: []}
        self.agreements: list[results.Agreement] = []
        self.scenarios: dict[str, results.Scenario] = {}
        self.arms: dict[str, results.Arm] = {}
        self.versions: dict[str, str] = {}

    def run(self, scenarios: Sequence[Scenario]) -> None:
        """Measure all. Raises ServiceError, Disagreement, WrongAnswers."""
        self._texts = self._folder / "texts.json"
        self._texts.write_text(json.dumps(corpus.texts(self._count)))
        alike = itertools.groupby(scenarios, lambda each: (each.models, each.apart))
        for (served, apart), chosen in alike:
            if isinstance(served, str):
                self._minilm(list(chosen))
            else:
                self._scaling(list(chosen), served, apart=apart)
        for random_weights, windows in self._starts.items():
            if windows:
                what = "generated models" if random_weights else "MiniLM"
                name = "start-generated" if random_weights else "start"
                declared = Scenario(
                    name=name,
                    title=f"{START}, {what}",
                    kind="start",
                    arms=[],
                    sets=[],
                    models=[] if random_weights else MINILM,
                )
                self._write(declared, Measured(windows))

    def _minilm(self, scenarios: Sequence[Scenario]) -> None:
        """Start every arm that is needed; then measure all scenarios, round by round.

        So the rounds of one are minutes apart: their spread tells how the machine drifts, too.
        """
        self._say("making MiniLM ready")
        served = models.minilm(self._built / "minilm")
        with ExitStack() as running:
            limit = running.enter_context(Limit(self._texts))
            self.versions |= limit.versions
            texts = Corpus(self._texts, self._count, limit.embed(self._folder))
            in_turns = [each for each in scenarios if each.kind != "rollout"]
            needed = dict.fromkeys(arm for each in in_turns for arm in each.arms)
            deployments = [self._start(running, arm, served) for arm in needed]
            rounds = {each.name: Rounds(each, texts, self._say) for each in in_turns}
            self._in_turns(in_turns, rounds, deployments, limit)
            for scenario in (each for each in scenarios if each.kind == "rollout"):
                found = rollout.measure(scenario, served, texts, self._new(), self._say)
                self._write(scenario, found)

    def _scaling(self, scenarios: Sequence[Scenario], sizes: Sequence[int], *, apart: bool) -> None:
        """Measure deployments of all sizes in turns: of all arms at once, or of arm after arm."""
        made = []
        for count in sizes:
            self._say(f"making {count} models of random weights ready")
            instances = max(1, len(os.sched_getaffinity(0)) // count)
            made.append(models.generated(self._built / f"zoo-{count}", count, instances))
        texts = Corpus(self._texts, self._count, None)
        rounds = {each.name: Rounds(each, texts, self._say) for each in scenarios}
        arms = list(dict.fromkeys(arm for each in scenarios for arm in each.arms))
        for together in [[arm] for arm in arms] if apart else [arms]:
            with ExitStack() as running:
                found = [self._start(running, arm, each) for each in made for arm in together]
                self._in_turns(scenarios, rounds, found)

    def _in_turns(
        self,
        scenarios: Sequence[Scenario],
        rounds: Mapping[str, Rounds],
        deployments: Sequence[Deployment],
        limit: Limit | None = None,
    ) -> None:
        """Measure round by round, each of all scenarios."""
        for number in range(max((each.rounds for each in scenarios), default=0)):
            for scenario in (each for each in scenarios if number < each.rounds):
                chosen = [each for each in deployments if each.arm in scenario.arms]
                rounds[scenario.name].round(number, chosen, limit)
                self._write(scenario, rounds[scenario.name].found)

    def _start(self, running: ExitStack, arm: str, served: Models) -> Deployment:
        """Start an arm and compare its answers with the reference's.

        How long it takes counts the first time: only some are started again.
        """
        self._say(f"starting {arm}, {len(served.names)} models")
        deployment = running.enter_context(deployed(arm, served, self._new()))
        agree(deployment, most=1)
        seconds = time.monotonic() - deployment.started
        point = str(len(served.names))
        starts = self._starts[served.random_weights]
        agreement = agree(deployment)
        if not any((each.arm, each.point) == (arm, point) for each in starts):
            rss, pss = deployment.memory()
            starts.append(results.Window(arm, 0, point, seconds, rss_bytes=rss, pss_bytes=pss))
            self.agreements.append(agreement)
        if arm not in self.arms or (arm in GATEWAYS and not served.random_weights):
            self.arms[arm] = described(arm, served)
        return deployment

    def _new(self) -> Path:
        return self._folder / "work" / str(next(self._numbers))

    def _write(self, scenario: Scenario, found: Measured) -> None:
        random_weights = scenario.models != MINILM
        self.scenarios[scenario.name] = results.Scenario(
            name=scenario.name,
            title=scenario.title,
            kind=scenario.kind,
            models="generated" if random_weights else MINILM,
            random_weights=random_weights,
            rows=scenario.rows,
            generator=scenario.generator,
            windows=found.windows,
            limits=found.limits,
            slo_ms=scenario.slo_ms,
            notes=found.notes,
            arrivals=scenario.arrivals,
            apart=scenario.apart,
        )
        self._measured(self)
