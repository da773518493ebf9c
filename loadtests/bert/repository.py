"""Writes the model repository of the run, the preprocessor's installation and the release's lock.

The machine may have no network: the preprocessor runs inside the gateway (`isolation = "inline"`),
installed in a folder of the run, so that no environment has to be resolved or built. The lock is
written with the gateway's own code from what was built a moment ago; the alignment gate then checks
digests and golden cases as in any deployment.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from string import Template
from typing import NamedTuple

from gateway.preprocessing.installed import load
from gateway.releases import lock, manifest
from loadtests.bert.texts import MOST_TOKENS, STEP

MODEL, RELEASE = "bert", "1"
REQUIREMENT = "bert-bench-preprocessor==1.0.0"
CONFIG = Template("""\
name: "$model"
platform: "pytorch_libtorch"
max_batch_size: $most_rows
input [
  { name: "input_ids" data_type: TYPE_INT64 dims: [ -1 ] },
  { name: "attention_mask" data_type: TYPE_INT64 dims: [ -1 ] }
]
output [ { name: "scores__0" data_type: TYPE_FP32 dims: [ 2 ] } ]
version_policy: { all { } }
# Calls of equal shape from several gateways become one execution. No queue policy: without one,
# Triton forms the next batch while an instance works (docs/triton.md).
dynamic_batching { max_queue_delay_microseconds: 0 }
instance_group [ { kind: $kind count: $instances } ]
$optimization
# The fuser compiles for every new shape, in the middle of the traffic.
parameters { key: "ENABLE_TENSOR_FUSER" value { string_value: "false" } }
parameters { key: "INFERENCE_MODE" value { string_value: "true" } }
""")
RELEASES = Template("""\
[releases.$release]
model_version = 1
preprocessor = "$requirement"
isolation = "inline"

[releases.$release.batching]
max_rows = $rows
max_tokens = 65536
max_calls = $calls
call_tokens = $call_tokens  # a GPU is hardly slower with so many more

[traffic]
$release = 100
""")


GRAPH = Template("""\
    { batch_size: $rows
      input { key: "input_ids" value { dim: [ $tokens ] } }
      input { key: "attention_mask" value { dim: [ $tokens ] } } }""")
#: Rows for which graphs are recorded; the least that has room is taken, and several for more.
GRAPH_ROWS = (1, 2, 4, *range(8, 129, 8), *range(144, 257, 16))


class Tuning(NamedTuple):
    """What the run may vary: Triton's side, and the bounds of a gateway's lane."""

    kind: str
    instances: int
    graphs: bool
    rows: int
    calls: int
    call_tokens: int
    most_rows: int = 512


def write(folder: Path, tuning: Tuning) -> Path:
    """Finish `folder`, where `build` has been; returns the folder for PYTHONPATH."""
    site, wheel = _install(folder)
    model = folder / "repository" / MODEL
    optimization = _graphs() if tuning.graphs else ""
    config = CONFIG.substitute(tuning._asdict() | {"model": MODEL, "optimization": optimization})
    (model / lock.CONFIG).write_text(config, encoding="utf-8")
    declared = RELEASES.substitute(
        tuning._asdict() | {"release": RELEASE, "requirement": REQUIREMENT}
    )
    (model / manifest.FILE).write_text(declared, encoding="utf-8")
    sys.path.insert(0, str(site))
    identity, _ = load(REQUIREMENT)
    digest = lock.digest_file(wheel)
    locked = lock.LockedRelease(
        model_version=1,
        preprocessor=REQUIREMENT,
        wheel=digest,
        contract=lock.digest_json(identity.description),
        goldens=lock.digest_json(identity.goldens),
        requirements=[f"{REQUIREMENT} --hash={digest}"],
        model=lock.digest_model(model, 1),
    )
    lock.write(model, lock.Lock({RELEASE: locked}))
    return site


def _graphs() -> str:
    """Ask for a graph of each shape that the gateways can send."""
    specs = [
        GRAPH.substitute(rows=rows, tokens=tokens)
        for rows in GRAPH_ROWS
        for tokens in range(STEP, MOST_TOKENS + 1, STEP)
    ]
    return "optimization { cuda { graphs: true graph_spec [\n" + ",\n".join(specs) + "\n] } }"


def _install(folder: Path) -> tuple[Path, Path]:
    """Build the preprocessor's wheel and unpack it; returns both places."""
    site, wheels = folder / "site", folder / "wheels"
    for old in (site, wheels):
        shutil.rmtree(old, ignore_errors=True)
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--wheel-dir", wheels, folder / "preprocessor"]
    subprocess.run(build, check=True)  # noqa: S603
    (wheel,) = wheels.glob("*.whl")
    install = [*pip, "install", "--no-deps", "--no-index", "--target", site, wheel]
    subprocess.run(install, check=True)  # noqa: S603
    return site, wheel
