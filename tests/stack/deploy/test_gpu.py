"""The PyTorch backend on a GPU; skipped where there is none, as in CI."""

import asyncio
import importlib.util
import shutil
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import InferInput
from tritonclient.utils import InferenceServerException

from tests.stack.deploy.backend_models import TORCH_PAIR

pytestmark = pytest.mark.skipif(
    not shutil.which("nvidia-smi") or not importlib.util.find_spec("cuda"),
    reason="needs an NVIDIA GPU, a CUDA build of torch and cuda-bindings",
)
PAIR = TORCH_PAIR.replace("KIND_CPU", "KIND_GPU")
GRAPHS = """
optimization { cuda { graphs: true graph_spec [ { batch_size: 4 }, { batch_size: 2 } ] } }
"""
STAYS = 'parameters { key: "FORCE_CPU_ONLY_INPUT_TENSORS" value { string_value: "no" } }'
WIDE = """
platform: "onnxruntime_onnx"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [ -1 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ -1 ] }
instance_group { kind: KIND_CPU count: 1 }
"""
MODELS = {
    "plain": ("pair.pt", PAIR),
    "graphs": (
        "pair.pt",
        PAIR + GRAPHS,
    ),
    "stays": ("pair.pt", PAIR + STAYS),
    "onnx": ("wide.onnx", WIDE + STAYS),
}


@pytest.fixture(scope="module")
async def models(served: Any, load_all: Any) -> Any:
    for name, (graph, config) in MODELS.items():
        served.write(name, graph, config)
    assert not any((await load_all(list(MODELS))).values())
    return served


def pair(rows: int) -> dict[str, np.ndarray[Any, Any]]:
    values = np.random.default_rng(rows).standard_normal((2, rows, 3), np.float32)
    return {"a": values[0], "b": values[1]}


async def infer(models: Any, model: str, feeds: dict[str, np.ndarray[Any, Any]]) -> Any:
    inputs = []
    for name, array in feeds.items():
        inputs.append(InferInput(name, list(array.shape), "FP32"))
        inputs[-1].set_data_from_numpy(array)
    return await models.client.infer(model, inputs)


def check(answer: Any, feeds: dict[str, np.ndarray[Any, Any]]) -> None:
    np.testing.assert_allclose(answer.as_numpy("OUTPUT__0"), feeds["a"] - feeds["b"], atol=1e-6)
    total = feeds["a"].sum(1, keepdims=True)
    np.testing.assert_allclose(answer.as_numpy("OUTPUT__1"), total, atol=1e-5)


@pytest.mark.parametrize("model", ["plain", "graphs"])
async def test_answers_are_right_whatever_the_rows(models: Any, model: str) -> None:
    """With graphs: rows that fill one, that leave room in one, and that need several."""
    for rows in (1, 2, 3, 4, 5, 8, 2):
        check(await infer(models, model, feeds := pair(rows)), feeds)


async def test_neighbours_in_a_batch_keep_their_rows(models: Any) -> None:
    feeds = [pair(rows) for rows in (1, 2, 1, 1, 3, 2)]
    answers = await asyncio.gather(*(infer(models, "graphs", each) for each in feeds))
    for answer, each in zip(answers, feeds, strict=True):
        check(answer, each)


async def test_inputs_may_stay_in_the_memory_of_the_gpu(models: Any) -> None:
    from tritonclient.utils import cuda_shared_memory as cuda  # noqa: PLC0415 - needs a GPU

    feeds, regions, inputs = pair(2), [], []
    for name, array in (*feeds.items(), ("x", feeds["a"])):
        region = cuda.create_shared_memory_region(name, array.nbytes, 0)
        cuda.set_shared_memory_region(region, [array])
        handle = cuda.get_raw_handle(region)
        await models.client.register_cuda_shared_memory(name, handle, 0, array.nbytes)
        inputs.append(InferInput(name, list(array.shape), "FP32"))
        inputs[-1].set_shared_memory(name, array.nbytes)
        regions.append(region)
    check(await models.client.infer("stays", inputs[:2]), feeds)
    check(await models.client.infer("plain", inputs[:2]), feeds)
    with pytest.raises(InferenceServerException, match="lies in a GPU's memory"):
        await models.client.infer("onnx", inputs[2:])
    await models.client.unregister_cuda_shared_memory()
    for region in regions:
        cuda.destroy_shared_memory_region(region)
