"""The gateway's repository of the generated models: `python -m loadtests.zoo.repository FOLDER`.

Runs in the gateway's environment, after `python -m loadtests.zoo FOLDER --count N`. Every release
is isolated, and all of them have one preprocessor: one environment, one pool of workers. So what
costs time (resolving, building the environment) is done once, for the first model, as `gateway
lock` does it; the other locks differ in their models' digests alone.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

import msgspec
import numpy as np
from gateway_preprocessor import goldens

from gateway.building import wheels
from gateway.building.custody import Custody
from gateway.building.locking import Locking
from gateway.commands.options import settings
from gateway.releases import lock, manifest
from gateway.releases.goldens import Result
from gateway.settings import Settings
from loadtests.baselines import catalogue as models
from loadtests.baselines.catalogue import MOST_TOKENS, Model, link
from loadtests.bert.texts import wordpiece
from loadtests.zoo import NOTICE, catalogue

PACKAGE = Path(__file__).parent / "preprocessor"
REQUIREMENT = "zoo-preprocessor==1.0.0"
RELEASE = "1"
#: Golden cases of each model: the gateway asks each of them at its start.
CASES = 2
TOLERANCE = 1e-4
CONFIG = Template("""\
# $notice.
name: "$model"
platform: "onnxruntime_onnx"
max_batch_size: 32
input [
  { name: "input_ids" data_type: TYPE_INT64 dims: [ -1 ] },
  { name: "attention_mask" data_type: TYPE_INT64 dims: [ -1 ] }
]
output [ { name: "scores__0" data_type: TYPE_FP32 dims: [ 2 ] } ]
version_policy: { all { } }
dynamic_batching { max_queue_delay_microseconds: 0 }
instance_group [ { kind: KIND_CPU count: $instances } ]
parameters { key: "intra_op_thread_count" value { string_value: "1" } }
parameters { key: "inter_op_thread_count" value { string_value: "1" } }
""")
RELEASES = f"""\
# {NOTICE}.
[releases.{RELEASE}]
model_version = 1
preprocessor = "{REQUIREMENT}"
batching = {{ call_tokens = 64 }}  # a call costs them more than it costs MiniLM, in tokens

[traffic]
{RELEASE} = 100
"""


def write(folder: Path, instances: int, config: Settings) -> None:
    """Write `folder/repository` anew. Raises what `gateway lock` raises."""
    repository = folder / "repository"
    shutil.rmtree(repository, ignore_errors=True)
    found = models.read(folder / catalogue.MODELS)
    references = msgspec.json.decode(
        (folder / catalogue.REFERENCE).read_bytes(), type=dict[str, catalogue.Cases]
    )
    for name, model in found.items():
        _model(repository / name, model, references[name], instances)
    _package(folder / "preprocessors/zoo", next(iter(references.values())).inputs[:CASES])
    custody = Custody(config.repository)
    wheels.build(config.preprocessors, config.wheelhouse, custody, print)  # the zoo depends on them
    own = {"repository": repository, "preprocessors": folder / "preprocessors"}
    first, *others = found
    asyncio.run(Locking(config.model_copy(update=own), print).lock((first,)))
    locked = lock.read(repository / first)
    assert locked  # noqa: S101 - written a moment ago
    for name in others:
        digests = lock.digest_model(repository / name, 1)
        release = msgspec.structs.replace(locked.releases[RELEASE], model=digests)
        lock.write(repository / name, lock.Lock({RELEASE: release}))


def _model(folder: Path, model: Model, cases: catalogue.Cases, instances: int) -> None:
    version = folder / "1"
    version.mkdir(parents=True)
    link(Path(model.onnx), version / "model.onnx")
    results = [
        Result(_case(number), {model.output: cases.outputs[number]}) for number in range(CASES)
    ]
    (version / goldens.FILE).write_bytes(msgspec.json.encode(results))
    config = CONFIG.substitute(notice=NOTICE, model=folder.name, instances=instances)
    (folder / lock.CONFIG).write_text(config, encoding="utf-8")
    (folder / manifest.FILE).write_text(RELEASES, encoding="utf-8")


def _package(folder: Path, texts: Sequence[str]) -> None:
    """Copy the preprocessor's package and add golden cases, whose results each model brings."""
    shutil.copytree(PACKAGE, folder, dirs_exist_ok=True)
    tokenizer = wordpiece()
    tokenizer.enable_truncation(MOST_TOKENS)
    cases = []
    for number, text in enumerate(texts):
        ids: Any = np.array(tokenizer.encode(text).ids, np.int64)
        tensors = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        cases.append(
            goldens.Golden(
                name=_case(number),
                reference="tokenizers on one unpadded text; results: each model's own goldens.json",
                input=text,
                tensors={name: goldens.Tensor.of(array) for name, array in tensors.items()},
                output=None,
                output_tolerance=TOLERANCE,
            )
        )
    goldens.save(cases, folder / "src/zoo_preprocessor")


def _case(number: int) -> str:
    return f"text-{number}"


def main() -> None:
    """Write the repository."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the models are")
    parser.add_argument("--instances", type=int, default=1, help="instances of each model")
    given = parser.parse_args()
    write(given.folder, given.instances, settings({}))


if __name__ == "__main__":
    main()
