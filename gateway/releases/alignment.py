"""Alignment: compares what a release declares with what is there, and runs its golden cases.

Pure comparisons; `control/verification.py` gathers the evidence. Each returns one sentence per
difference, or none; `require` turns them into an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec
from gateway_preprocessor import Description, Prepared, TensorSpec
from gateway_preprocessor.goldens import Golden

from gateway import differences

#: numpy dtype name → Triton's.
TRITON_DTYPES = {
    "bool": "BOOL",
    **{f"int{bits}": f"INT{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"UINT{bits}" for bits in (8, 16, 32, 64)},
    **{f"float{bits}": f"FP{bits}" for bits in (16, 32, 64)},
}
#: Most differences named in one message.
MOST = 5
#: Tensor name → Triton's dtype and the dims of one row.
Served = Mapping[str, tuple[str, tuple[int, ...]]]


class Misaligned(RuntimeError):
    """A release that must not receive traffic; the message tells operators why."""


def require(differences: Iterable[str], where: str = "") -> None:
    """Raise Misaligned if there are differences; the message begins with `where`."""
    if found := list(differences):
        more = f" (and {len(found) - MOST} more)" if len(found) > MOST else ""
        raise Misaligned(where + "; ".join(found[:MOST]) + more)


def specs(
    described: Description, inputs: Served, outputs: Served, max_batch_size: int
) -> list[str]:
    """Compare a preprocessor's tensors with those that Triton serves."""
    found = [] if max_batch_size else ["the model does not batch (max_batch_size is 0)"]
    found += _tensors("input", described.tensors, inputs)
    found += _tensors("output", described.outputs, outputs)
    declared = {spec.name for spec in described.tensors}
    found += [
        f"the model's input {name!r} is not sent" for name in sorted(inputs.keys() - declared)
    ]
    return found


def tensors(goldens: Sequence[Golden], prepared: Sequence[Prepared | Exception]) -> list[str]:
    """Compare the tensors that the preprocessor makes of the golden cases with the golden ones."""
    return list(_tensor_differences(goldens, prepared))


def results(
    goldens: Sequence[Golden], answers: Sequence[bytes | Exception], tolerance: float | None
) -> list[str]:
    """Compare the answers that came back through Triton with the golden results.

    `tolerance`, if given, replaces that of the cases.
    """
    return list(_result_differences(goldens, answers, tolerance))


def _tensors(kind: str, declared: Sequence[TensorSpec], served: Served) -> Iterator[str]:
    for spec in declared:
        if spec.name not in served:
            yield f"the model has no {kind} {spec.name!r}, only {sorted(served)}"
            continue
        dtype, dims = served[spec.name]
        if TRITON_DTYPES[spec.dtype] != dtype:
            yield f"{kind} {spec.name!r}: {spec.dtype} is declared, the model has {dtype}"
        if len(dims) != len(spec.shape) or any(
            -1 not in (want, got) and want != got
            for want, got in zip(spec.shape, dims, strict=True)
        ):
            shape = list(spec.shape)
            yield f"{kind} {spec.name!r}: {shape} is declared, the model has {list(dims)}"


def _tensor_differences(
    goldens: Sequence[Golden], prepared: Sequence[Prepared | Exception]
) -> Iterator[str]:
    for golden, item in zip(goldens, prepared, strict=True):
        if isinstance(item, Exception):
            yield f"golden case {golden.name!r}: preprocess failed: {item}"
        elif told := differences.of_tensors(golden, item.tensors):
            yield f"golden case {golden.name!r}: {told}"


def _result_differences(
    goldens: Sequence[Golden], answers: Sequence[bytes | Exception], tolerance: float | None
) -> Iterator[str]:
    for golden, answer in zip(goldens, answers, strict=True):
        if isinstance(answer, Exception):
            yield f"golden case {golden.name!r}: postprocess failed: {answer}"
            continue
        allowed = golden.output_tolerance if tolerance is None else tolerance
        if told := differences.of_result(golden.output, msgspec.json.decode(answer), allowed):
            yield f"golden case {golden.name!r}: {told}"
