"""The Python-based backends on a real Triton: right answers, and the C++ backends' strictness."""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import psutil
import pytest
from tritonclient.grpc import InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from tests.stack.deploy.backend_models import (
    ONNX_TYPES,
    TEXT,
    TEXT_CONFIG,
    TORCH_TYPES,
)

TOLERANCE = 1e-6
INDEX = np.array([[1]])


async def infer(
    served: Any, model: str, feeds: dict[str, Any], outputs: Sequence[str] = ()
) -> dict[str, np.ndarray[Any, Any]]:
    inputs = []
    for name, value in feeds.items():
        array = np.asarray(value)
        tensor = InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    wanted = [InferRequestedOutput(name) for name in outputs] or None
    answer = await served.client.infer(model, inputs, outputs=wanted)
    return {tensor.name: answer.as_numpy(tensor.name) for tensor in answer.get_response().outputs}


def rows(count: int, width: int = 3) -> np.ndarray[Any, Any]:
    return np.random.default_rng(count).normal(size=(count, width)).astype(np.float32)


@pytest.mark.parametrize("model", ["onnx_pair", "onnx_renamed", "onnx_tuned", "onnx_auto"])
async def test_onnx_outputs(models: Any, model: str) -> None:
    a, b = rows(4), rows(3)[:1] + np.zeros((4, 1), np.float32)
    answer = await infer(models, model, {"b": b, "a": a})
    assert answer.keys() == {"difference", "total"}
    np.testing.assert_allclose(answer["difference"], a - b, rtol=TOLERANCE)
    np.testing.assert_allclose(answer["total"], a.sum(1, keepdims=True), rtol=TOLERANCE)


@pytest.mark.parametrize(
    ("model", "values", "prefixes"),
    [("onnx_types", ONNX_TYPES, ("in_", "out_")), ("torch_types", TORCH_TYPES, ("", "out_"))],
)
async def test_every_dtype_passes_unchanged(
    models: Any, model: str, values: dict[str, Any], prefixes: tuple[str, str]
) -> None:
    feeds = {prefixes[0] + name: array for name, array in values.items()}
    answer = await infer(models, model, feeds)
    for name, array in values.items():
        got = answer[prefixes[1] + name]
        assert got.dtype == array.dtype
        np.testing.assert_array_equal(got, array, err_msg=name)


async def test_text_is_right_or_refused(models: Any, numpy_version: str) -> None:
    models.write("onnx_text", "text.onnx", TEXT_CONFIG)
    if not numpy_version.startswith("1."):
        with pytest.raises(InferenceServerException, match="text needs numpy below 2"):
            await models.client.load_model("onnx_text")
        return
    await models.client.load_model("onnx_text")
    good, failure = await asyncio.gather(
        infer(models, "onnx_text", {"x": TEXT}),
        infer(models, "onnx_text", {"x": np.array([[b"\xff", b""]], np.object_)}),
        return_exceptions=True,
    )
    np.testing.assert_array_equal(good["y"], TEXT)
    assert isinstance(failure, InferenceServerException)  # alone, though in the same batch
    assert failure.status() == "StatusCode.INVALID_ARGUMENT"


async def test_concurrent_singles_are_batched_and_equal_the_batch(models: Any) -> None:
    batch = rows(16, width=7)
    whole = (await infer(models, "onnx_wide", {"x": batch}))["y"]
    before = await models.client.get_inference_statistics("onnx_wide", as_json=True)
    singles = await asyncio.gather(
        *(infer(models, "onnx_wide", {"x": batch[i : i + 1]}) for i in range(16))
    )
    after = await models.client.get_inference_statistics("onnx_wide", as_json=True)
    np.testing.assert_allclose(whole, 2 * batch, rtol=TOLERANCE)
    np.testing.assert_allclose(np.concatenate([s["y"] for s in singles]), whole, rtol=TOLERANCE)
    # Triton counts a moment after it answers, and leaves out what is 0.
    stats = [found["model_stats"][0] for found in (before, after)]
    executions = [int(found.get("execution_count", 0)) for found in stats]
    assert executions[1] - executions[0] < 16


async def test_requests_of_one_batch_keep_their_rows_and_outputs(models: Any) -> None:
    sizes = (1, 3, 2, 1)
    values = [rows(size, width=5) for size in sizes]
    answers = await asyncio.gather(*(infer(models, "onnx_wide", {"x": v}) for v in values))
    for value, answer in zip(values, answers, strict=True):
        np.testing.assert_allclose(answer["y"], 2 * value, rtol=TOLERANCE)


@pytest.mark.parametrize(
    ("model", "outputs"), [("onnx_pair", ["total"]), ("torch_order", ["total"])]
)
async def test_a_subset_of_the_outputs(models: Any, model: str, outputs: list[str]) -> None:
    a = rows(2)
    names = ("a", "b") if model == "onnx_pair" else ("first", "second")
    answer = await infer(models, model, dict.fromkeys(names, a), outputs)
    assert list(answer) == outputs
    np.testing.assert_allclose(answer["total"], a.sum(1, keepdims=True), rtol=TOLERANCE)


async def test_a_model_may_list_a_subset_of_its_outputs(models: Any) -> None:
    answer = await infer(models, "onnx_subset", {"a": rows(2), "b": rows(2)})
    assert list(answer) == ["total"]


async def test_a_wildcard_input_may_be_narrowed(models: Any) -> None:
    answer = await infer(models, "onnx_narrowed", {"x": rows(2, width=5)})
    np.testing.assert_allclose(answer["y"], 2 * rows(2, width=5), rtol=TOLERANCE)
    with pytest.raises(InferenceServerException, match="INVALID_ARGUMENT"):
        await infer(models, "onnx_narrowed", {"x": rows(2, width=4)})


async def test_without_a_batch_dimension(models: Any) -> None:
    a = rows(2)
    answers = await asyncio.gather(
        *(infer(models, "onnx_fixed", {"a": a + i, "b": a}) for i in range(4))
    )
    for i, answer in enumerate(answers):
        np.testing.assert_allclose(answer["difference"], np.full((2, 3), i), atol=TOLERANCE)


@pytest.mark.parametrize(
    ("model", "value"),
    [("onnx_scalar", [2.5]), ("onnx_reshape", [[2.5], [1]]), ("onnx_auto_flat", [[2.5], [1]])],
)
async def test_scalars_and_reshapes(models: Any, model: str, value: Any) -> None:
    array = np.array(value, np.float32)
    answer = await infer(models, model, {"x": array})
    np.testing.assert_array_equal(answer["y"], -array)


@pytest.mark.parametrize(
    ("model", "batch", "batching", "dims"),
    [
        ("onnx_auto", 4, True, {"a": [3], "b": [3], "difference": [3], "total": [1]}),
        ("onnx_auto_fixed", 0, False, {"a": [2, 3], "b": [2, 3]}),
        ("onnx_auto_flat", 3, True, {"x": [1], "y": [1]}),
    ],
)
async def test_completed_configuration(
    models: Any, model: str, batch: int, batching: bool, dims: dict[str, list[int]]
) -> None:
    config = (await models.client.get_model_config(model, as_json=True))["config"]
    tensors = {t["name"]: [int(d) for d in t["dims"]] for t in config["input"] + config["output"]}
    assert config.get("max_batch_size", 0) == batch
    assert ("dynamic_batching" in config) is batching
    assert tensors.items() >= dims.items()


@pytest.mark.parametrize(
    ("model", "names", "outputs"),
    [
        ("torch_names", ("a", "b"), ("OUTPUT__0", "OUTPUT__1")),
        ("torch_index", ("INPUT__0", "INPUT__1"), ("OUTPUT__0", "OUTPUT__1")),
        ("torch_order", ("first", "second"), ("difference", "total")),
    ],
)
async def test_torchscript_naming(
    models: Any, model: str, names: tuple[str, str], outputs: tuple[str, str]
) -> None:
    a, b = rows(2), rows(2) + 1
    answer = await infer(models, model, dict(zip(names, (a, b), strict=True)))
    np.testing.assert_allclose(answer[outputs[0]], a - b, rtol=TOLERANCE)
    np.testing.assert_allclose(answer[outputs[1]], a.sum(1, keepdims=True), rtol=TOLERANCE)


async def test_torchscript_dict_of_tensors(models: Any) -> None:
    answer = await infer(models, "torch_keyed", {"b": rows(2), "a": rows(2) + 1})
    np.testing.assert_allclose(answer["OUTPUT__0"], np.ones((2, 3)), rtol=TOLERANCE)


@pytest.mark.parametrize(
    ("model", "feeds", "reason"),
    [
        (
            "torch_third_output",
            {"a": rows(1), "b": rows(1)},
            "OUTPUT__2 .* index which doesn't exist. This model has 2 outputs",
        ),
        ("torch_wrong_dtype", {"index": INDEX}, "expects datatype TYPE_FP64 .* provides float32"),
        ("torch_wrong_dims", {"index": INDEX}, r"expects shape \[1, 2\] .* provides \[1, 1\]"),
    ],
)
async def test_outputs_are_checked(
    models: Any, model: str, feeds: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InferenceServerException, match=reason) as caught:
        await infer(models, model, feeds)
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


@pytest.mark.parametrize("model", ["onnx_lookup", "torch_lookup"])
async def test_a_failing_inference_leaves_its_process_serving(models: Any, model: str) -> None:
    before = stub(models, model).pid
    good, bad, again = await asyncio.gather(
        *(infer(models, model, {"index": np.array([[i]])}) for i in (1, 99, 2)),
        return_exceptions=True,
    )
    assert isinstance(bad, InferenceServerException)
    assert bad.status() == "StatusCode.INTERNAL"
    assert (good["value"], again["value"]) == ([[11.0]], [[12.0]])
    assert stub(models, model).pid == before


async def test_thread_defaults_and_parameters(models: Any) -> None:
    for model in ("torch_lookup", "torch_tuned"):
        assert (await infer(models, model, {"index": INDEX}))["value"] == [[11.0]]

    def threads(model: str) -> int:
        return stub(models, model).num_threads()

    # The thread that asks counts as one of an inference's. Both frameworks may start helpers with
    # a pool, so these are lower bounds; torch's pool begins with its first large product.
    assert threads("onnx_tuned") - threads("onnx_pair") >= 3 - 1
    assert threads("torch_tuned") - threads("torch_lookup") >= 2 - 1


async def test_instances_stand_back_behind_the_servers_that_feed_them(models: Any) -> None:
    assert [stub(models, model).nice() for model in ("onnx_pair", "torch_lookup")] == [5, 5]


async def test_a_model_can_be_loaded_again_and_unloaded(models: Any) -> None:
    process = stub(models, "onnx_renamed")
    await models.client.load_model("onnx_renamed")
    answer = await infer(models, "onnx_renamed", {"a": rows(1), "b": rows(1)})
    np.testing.assert_array_equal(answer["difference"], np.zeros((1, 3)))
    await models.client.unload_model("onnx_renamed")
    deadline = time.monotonic() + 10
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_a_killed_instance_comes_back_with_a_reload(models: Any) -> None:
    feeds = {"x": rows(1, width=5)}
    stub(models, "onnx_narrowed").kill()
    with pytest.raises(InferenceServerException, match="is not healthy"):
        await infer(models, "onnx_narrowed", feeds)
    await models.client.unload_model("onnx_narrowed")
    await models.client.load_model("onnx_narrowed")
    answer = await infer(models, "onnx_narrowed", feeds)
    np.testing.assert_allclose(answer["y"], 2 * feeds["x"], rtol=TOLERANCE)


def stub(served: Any, model: str) -> psutil.Process:
    """The process of the model's only instance, named with its group where the config has one."""
    names = {f"{model}_0", f"{model}_0_0"}
    for child in psutil.Process(served.triton.status.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if names & set(child.cmdline()):
                return child
    raise LookupError(model)
