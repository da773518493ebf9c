"""Locust's users: they ask models of the gateway, or of a baseline, and judge every answer.

`locust -f loadtests/locustfile.py --host http://127.0.0.1:8080`; docs/load-testing.md has more.
"""

from __future__ import annotations

import logging
import random
from argparse import Namespace
from pathlib import Path
from typing import Any, NamedTuple, Self

from locust import FastHttpUser, constant, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from loadtests.baselines import ARMS
from loadtests.load.protocol import Protocol
from loadtests.questions import Model, ask, models, wrong

GATEWAY = "gateway"
#: More models than these share a line of Locust's table.
MOST_LINES = 10
logger = logging.getLogger(__name__)


class Workload(NamedTuple):
    """Who is asked, how and how often: `kinds` are rows a request, models and kinds weighted."""

    models: list[Model]
    shares: list[float]
    kinds: list[int]
    kind_shares: list[float]
    protocol: Protocol
    stamped: bool
    headers: dict[str, str]

    @classmethod
    def of(cls, options: Namespace) -> Self:
        """Read the command line, or what was typed into the web page. Raises ValueError."""
        weights = dict(map(_weighted, filter(None, options.models.split(","))))
        catalogue = Path(options.models_file) if options.models_file else None
        found = models(list(weights), catalogue)
        headers = {"Content-Type": "application/json"}
        if options.release:
            headers["X-Release"] = options.release
        return cls(
            found,
            [weights.get(model.name, 1.0) for model in found],
            [1, options.rows],
            [options.singles, options.batches],
            ARMS[options.arm].protocol if options.arm != GATEWAY else "predict",
            options.arm == GATEWAY,
            headers,
        )

    def line(self, model: Model, rows: int) -> str:
        """Return the line of Locust's table that a request counts to."""
        whom = model.name if len(self.models) <= MOST_LINES else f"{len(self.models)} models"
        return f"{whom}, single" if rows == 1 else f"{whom}, batch of {rows}"


def _weighted(text: str) -> tuple[str, float]:
    name, _, weight = text.partition(":")
    return name.strip(), float(weight or 1)


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def options(parser: LocustArgumentParser) -> None:
    """Add what can be chosen beside Locust's own options; all of it is in the web page, too."""
    group = parser.add_argument_group("What is asked")
    group.add_argument(
        "--arm",
        choices=[GATEWAY, *ARMS],
        default=GATEWAY,
        help="who answers: it decides on the protocol, and whether answers carry stamps",
    )
    group.add_argument(
        "--models",
        default="",
        metavar="NAME[:WEIGHT],…",
        help="which models, and how often; all of them alike without it",
    )
    group.add_argument(
        "--models-file",
        default="",
        metavar="models.json",
        help="of loadtests.zoo: ask these models instead of the default repository's",
    )
    group.add_argument("--singles", type=float, default=1, help="weight of singles")
    group.add_argument("--batches", type=float, default=0, help="weight of batches")
    group.add_argument("--rows", type=int, default=32, help="instances a batch has")
    group.add_argument("--release", default="", help="pin this release of the gateway's models")


@events.test_start.add_listener  # type: ignore[untyped-decorator]
def prepare(environment: Environment, **_: Any) -> None:
    """Read the options: a worker has its master's by now. What makes no sense ends the run."""
    assert environment.parsed_options  # noqa: S101 - Locust has parsed them
    assert environment.runner  # noqa: S101 - and made it
    try:
        Client.workload = Workload.of(environment.parsed_options)
    except (ValueError, OSError) as error:
        logger.error("%s", error)  # noqa: TRY400 - it is not our bug
        environment.process_exit_code = 2
        environment.runner.quit()


class Client(FastHttpUser):
    """Sends the next request when the last answer is in and judged."""

    wait_time = constant(0)
    workload: Workload

    def on_start(self) -> None:
        """Draw from a sequence of its own."""
        self.chance = random.Random()  # noqa: S311 - users must not ask the same in step

    @task
    def ask(self) -> None:
        """Ask one model one question."""
        load = self.workload
        (model,) = self.chance.choices(load.models, load.shares)
        (rows,) = self.chance.choices(load.kinds, load.kind_shares)
        question = ask(model, load.protocol, rows, self.chance)
        with self.client.post(
            question.path,
            data=question.body,  # type: ignore[arg-type]  # bytes are taken, too
            headers=load.headers,
            name=load.line(model, rows),
            catch_response=True,
        ) as response:
            if not response.status_code:
                response.failure(f"no answer: {type(response.error).__name__}")
                return
            problem = wrong(
                question,
                response.status_code,
                response.headers,
                response.content,
                stamped=load.stamped,
            )
            if problem:
                response.failure(problem)
