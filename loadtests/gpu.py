"""The whole stack on a GPU machine: load generators, gateways, embedded Triton, and a raw loop.

`python -m loadtests.gpu` serves a BERT-base with random weights in half precision, measures in
turn what the GPU does without any server and what clients get through the gateways, and writes
`gpu.json` and `gpu.md`. It needs no network (`loadtests/bert/offline`). With `--device cpu --smoke`
everything is small: that only shows that it works.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import click
from click.core import ParameterSource

from loadtests.bert import report, repository
from loadtests.bert.load import Load, Workload
from loadtests.bert.repository import Tuning
from loadtests.load.service import ROOT
from loadtests.load.stack import Stack


class Scale(NamedTuple):
    """How much is done: the model, the texts, the raw loop's batches, seconds and rounds."""

    size: str
    texts: int
    raw_rows: tuple[int, ...]
    raw_seconds: float
    warm_up: float
    seconds: float
    rounds: int


FULL = Scale("base", 4096, (128, 256, 512), 1.5, 3.0, 8.0, 3)
SMOKE = Scale("tiny", 256, (8, 32), 0.2, 0.5, 1.0, 1)


class Models:
    """Runs the scripts that need torch, in the models' environment."""

    def __init__(self, python: Path, folder: Path, scale: Scale, *, gpu: bool) -> None:
        self._python = python.absolute()
        self._folder = folder
        self._scale = scale
        self._gpu = gpu

    def build(self) -> None:
        """Write the model and the preprocessor's package."""
        half = ["--half"] if self._gpu else []
        self._run("build", str(self._folder), "--size", self._scale.size, *half)

    def raw(self, *extra: str) -> Any:
        """Measure the raw loop."""
        given = [str(self._scale.raw_seconds), *map(str, self._scale.raw_rows)]
        given += ["--texts", str(self._scale.texts), *extra]
        return json.loads(self._run("raw", str(self._folder), *given))

    def texts(self) -> str:
        """Return the texts as JSON."""
        return self._run("texts", str(self._scale.texts))

    def _run(self, script: str, *arguments: str) -> str:
        hidden = {} if self._gpu else {"CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(  # noqa: S603
            [self._python, "-m", f"loadtests.bert.{script}", *arguments],
            cwd=ROOT,
            env={**os.environ, **hidden},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return done.stdout


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True)
@click.option("--smoke", is_flag=True, help="a tiny model for a second: does it work at all?")
@click.option("--gateways", default=12, show_default=True, help="gateway processes")
@click.option("--generators", default=3, show_default=True, help="load generator processes")
@click.option("--instances", default=3, show_default=True, help="of the model")
@click.option("--graphs/--no-graphs", default=True, show_default=True, help="CUDA graphs")
@click.option("--rows", default=512, show_default=True, help="most rows in a call to Triton")
@click.option("--calls", default=1, show_default=True, help="a gateway's calls in flight")
@click.option("--call-tokens", default=100, show_default=True, help="what a call costs, in tokens")
@click.option("--users", default=1024, show_default=True, help="users of the single endpoint")
@click.option("--batch", default=128, show_default=True, help="rows in a batch request")
@click.option("--clients", default=144, show_default=True, help="users of the batch endpoint")
@click.option("--rounds", type=int, help="how often everything is measured")
@click.option("--machine", help="how the report names the machine")
@click.option(
    "--models-python",
    type=Path,
    default=ROOT / ".venv-models/bin/python",
    help="interpreter with torch and Triton",
)
@click.option("--folder", type=Path, default=Path(".run/gpu"), help="working folder, emptied first")
@click.option("--out", type=Path, default=Path("loadtests/report"), help="folder of the report")
def main(**given: Any) -> None:
    """Build, serve, measure and report."""
    scale, gpu = SMOKE if given["smoke"] else FULL, given["device"] == "cuda"
    folder = given["folder"].absolute()
    shutil.rmtree(folder, ignore_errors=True)
    models = Models(given["models_python"], folder, scale, gpu=gpu)
    models.build()
    tuning = Tuning(
        kind="KIND_GPU" if gpu else "KIND_CPU",
        **{name: given[name] for name in ("instances", "graphs", "rows", "calls", "call_tokens")},
    )
    site = repository.write(folder, tuning)
    bare = models.raw("--scores")
    inputs, expected = folder / "texts.json", folder / "scores.json"
    inputs.write_text(models.texts(), encoding="utf-8")
    expected.write_text(json.dumps(bare.pop("scores")), encoding="utf-8")
    workloads = {
        "batches": Workload(given["batch"], given["clients"]),
        "singles": Workload(1, given["users"]),
    }
    rounds = []
    with Stack(folder, folder / "repository", _variables(site, given)) as stack:
        load = Load(stack, inputs, expected, given["generators"])
        for _ in range(given["rounds"] or scale.rounds):
            raw = models.raw()["rows_per_second"]
            done = {
                name: load.run(workload, scale.warm_up, scale.seconds)
                for name, workload in workloads.items()
            }
            rounds.append({"raw": raw, "workloads": done})
            click.echo(json.dumps(rounds[-1]))
    written = {
        "command": _command(),
        "facts": _facts(given, scale, bare, gpu=gpu),
        "summary": report.summary(rounds),
        "rounds": rounds,
    }
    given["out"].mkdir(parents=True, exist_ok=True)
    (given["out"] / "gpu.json").write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    (given["out"] / "gpu.md").write_text(text := report.markdown(written), encoding="utf-8")
    click.echo(text)


def _command() -> str:
    """Return the command without what holds for this machine alone: its paths."""
    context, words = click.get_current_context(), ["python", "-m", "loadtests.gpu"]
    for name, value in context.params.items():
        option = name.replace("_", "-")
        if context.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        elif not isinstance(value, Path):
            words += [f"--{option}", str(value)]
    return shlex.join(words)


def _variables(site: Path, given: dict[str, Any]) -> dict[str, str]:
    """Return the gateways' settings, and where they find the preprocessor."""
    settings = {
        "processes": str(given["gateways"]),
        "models_python": str(given["models_python"].absolute()),
        "log_level": "warning",
        "queue_rows": "16384",
    }
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        "PYTHONPATH": os.pathsep.join(paths),
        **{f"GATEWAY_{name.upper()}": value for name, value in settings.items()},
    }


def _facts(
    given: dict[str, Any], scale: Scale, bare: dict[str, Any], *, gpu: bool
) -> dict[str, str]:
    machine = given["machine"] or f"{bare['device']}, {os.cpu_count()} CPU cores"
    return {
        "machine": machine,
        "day": dt.datetime.now(dt.UTC).date().isoformat(),
        "model": f"BERT-{scale.size}, {'fp16' if gpu else 'fp32'} TorchScript, random weights:"
        f" speed only; two scores a text; torch {bare['torch']}",
        "texts": f"{scale.texts} of 4 to 40 words, {bare['mean_tokens']:.1f} tokens in the mean",
        "stack": f"{given['gateways']} gateway processes, one embedded Triton with"
        f" {given['instances']} instances on one device, CUDA graphs"
        f" {'on' if given['graphs'] and gpu else 'off'}; at most {given['rows']} rows a call and"
        f" {given['calls']} call in flight a gateway",
    }


if __name__ == "__main__":
    main()
