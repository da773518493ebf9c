"""Trains `tumor`, proves the ONNX file against scikit-learn and publishes held-out figures.

    .venv-models/bin/python model_repository/tumor/export.py

Writes `1/model.onnx` and `CARD.md` beside this file and the golden cases of the preprocessor.
The same packages on the same CPU give the same bytes.
"""

import argparse
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
from gateway_preprocessor.goldens import Golden, Tensor, save
from numpy.typing import NDArray
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_validate, train_test_split

HERE = Path(__file__).resolve().parent
GOLDENS = HERE.parents[1] / "preprocessors" / "tumor" / "src" / "tumor_preprocessor"
SEED = 0
HELD_OUT = 0.2
GOLDEN_CASES = 12
#: ONNX adds the trees up in float32, scikit-learn in float64.
TOLERANCE = 1e-5
#: Opsets of the oldest ONNX Runtime that is meant to load the file.
OPSETS = {"": 17, "ai.onnx.ml": 3}
#: The lowest cross-validated log loss on the training rows among six settings.
HYPERPARAMETERS = {
    "n_estimators": 150,
    "learning_rate": 0.1,
    "max_depth": 2,
    "subsample": 0.7,
    "max_features": "sqrt",
}

Floats = NDArray[np.float32]


class Split(NamedTuple):
    """Training and held-out rows: float32 (rows, 30) and target indices (rows,)."""

    train: Floats
    held_out: Floats
    train_target: NDArray[np.int64]
    held_out_target: NDArray[np.int64]
    features: list[str]
    labels: list[str]


def load() -> Split:
    """Split the data set by row, stratified, after removing exact duplicates."""
    data = load_breast_cancer()
    _, kept = np.unique(data.data, axis=0, return_index=True)
    kept = np.sort(kept)
    rows, target = data.data[kept].astype(np.float32), data.target[kept]
    parts = train_test_split(rows, target, test_size=HELD_OUT, stratify=target, random_state=SEED)
    return Split(
        *parts, [str(name) for name in data.feature_names], list(map(str, data.target_names))
    )


def untrained() -> GradientBoostingClassifier:
    """Return the classifier before training, seeded."""
    return GradientBoostingClassifier(**HYPERPARAMETERS, random_state=SEED)


def export(model: GradientBoostingClassifier) -> onnx.ModelProto:
    """Turn the trees into ONNX: `features` (rows, 30) → `probabilities` (rows, 2)."""
    features = [("features", FloatTensorType([None, model.n_features_in_]))]
    graph = to_onnx(
        model, initial_types=features, options={"zipmap": False}, target_opset=OPSETS, name="tumor"
    )
    label = next(output for output in graph.graph.output if output.name == "label")
    graph.graph.output.remove(label)
    onnx.checker.check_model(graph, full_check=True)
    return graph


def predict(model: bytes, rows: Floats) -> Floats:
    """Run the ONNX file: probabilities (rows, 2)."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (probabilities,) = session.run(["probabilities"], {"features": rows})
    return probabilities


def evaluate(model: bytes, split: Split) -> dict[str, float]:
    """Measure the ONNX file on the held-out rows."""
    probabilities = predict(model, split.held_out)
    target, found = split.held_out_target, probabilities.argmax(axis=1)
    (true_malignant, missed), _ = confusion_matrix(target, found)
    return {
        "accuracy": accuracy_score(target, found),
        "ROC AUC": roc_auc_score(target, probabilities[:, 1]),
        "log loss": log_loss(target, probabilities[:, 1].astype(np.float64)),
        "malignant found": float(true_malignant / (true_malignant + missed)),
    }


def cross_validation(split: Split) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation over five folds of the training rows."""
    folds = StratifiedKFold(5, shuffle=True, random_state=SEED)
    names = {"accuracy": "accuracy", "ROC AUC": "roc_auc"}
    scores = cross_validate(
        untrained(), split.train, split.train_target, cv=folds, scoring=list(names.values())
    )
    values = {name: scores[f"test_{scorer}"] for name, scorer in names.items()}
    return {name: (folds.mean(), folds.std()) for name, folds in values.items()}


def goldens(model: GradientBoostingClassifier, split: Split) -> list[Golden]:
    """Choose held-out rows from sure to doubtful; scikit-learn alone says what they give."""
    certainty = model.predict_proba(split.held_out).max(axis=1)
    spread = np.linspace(0, len(certainty) - 1, GOLDEN_CASES).round().astype(int)
    cases = []
    for index in np.argsort(certainty, kind="stable")[spread]:
        row = split.held_out[index]
        probabilities = model.predict_proba(row[None])[0]
        best = int(probabilities.argmax())
        # The shortest decimals that name the same float32, as the data set writes them.
        record = {name: float(str(value)) for name, value in zip(split.features, row, strict=True)}
        cases.append(
            Golden(
                name=f"held-out row {index}: {split.labels[best]}, {probabilities[best]:.3f}",
                reference="scikit-learn's predict_proba on the data set's own row",
                input=record,
                tensors={"features": Tensor.of(row)},
                output={"label": split.labels[best], "probability": float(probabilities[best])},
                row={"probabilities": Tensor.of(probabilities.astype(np.float32))},
                output_tolerance=TOLERANCE,
            )
        )
    return cases


def card(
    split: Split,
    figures: dict[str, float],
    folds: dict[str, tuple[float, float]],
    difference: float,
) -> str:
    """Write the model card."""
    held_out = "\n".join(f"| {name} | {value:.4f} |" for name, value in figures.items())
    crossed = "\n".join(f"| {k} | {mean:.4f} ± {std:.4f} |" for k, (mean, std) in folds.items())
    settings = ", ".join(f"{name} {value}" for name, value in HYPERPARAMETERS.items())
    packages = ", ".join(f"{name} {version(name)}" for name in ("scikit-learn", "skl2onnx", "onnx"))
    train, tested = len(split.train), len(split.held_out)
    return f"""# tumor

Written by `export.py`; do not edit.

Gradient-boosted trees that tell a benign breast mass from a malignant one by 30 measurements of
its cell nuclei. Made to show tabular serving; **not a medical device**.

- Data: scikit-learn's `load_breast_cancer` (Wisconsin Diagnostic, 1995) without exact duplicates:
  {train} training and {tested} held-out rows, split by row, stratified, seed {SEED}.
- Model: `GradientBoostingClassifier`
  ({settings}),
  chosen by cross-validation on the training rows.
- Input `features` float32 (rows, 30) in the data set's order; output `probabilities` float32
  (rows, 2): {", ".join(split.labels)}.

## Held-out rows (never used for training or for choices), through the ONNX file

| figure | value |
| --- | --- |
{held_out}

With {tested} rows, one row is {1 / tested:.4f} of accuracy.

## Five-fold cross-validation on the training rows

| figure | mean ± std |
| --- | --- |
{crossed}

## Fidelity

The ONNX file and scikit-learn's `predict_proba` agree on all {train + tested} rows of the data set:
same label everywhere, largest difference of a probability {difference:.1e} (bound {TOLERANCE:.0e}).

## Limits

One hospital, one decade, one way of measuring; rows of one clinic are on both sides of the split.
The probabilities are those of boosted trees on a small data set and tend to be too sure.

Made with {packages}.
"""


def main() -> None:
    """Train, prove, measure, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.parse_args()
    split = load()
    model = untrained().fit(split.train, split.train_target)
    exported = export(model).SerializeToString(deterministic=True)

    everything = np.concatenate([split.train, split.held_out])
    expected, actual = model.predict_proba(everything), predict(exported, everything)
    difference = float(np.abs(actual - expected).max())
    if difference > TOLERANCE or (actual.argmax(axis=1) != expected.argmax(axis=1)).any():
        raise SystemExit(f"ONNX and scikit-learn differ by {difference}")
    figures = evaluate(exported, split)

    target = HERE / "1" / "model.onnx"
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(exported)
    (HERE / "CARD.md").write_text(
        card(split, figures, cross_validation(split), difference), encoding="utf-8"
    )
    save(goldens(model, split), GOLDENS)
    print(f"{target.name}: {len(exported)} bytes, {figures}, differs by {difference:.1e}")


if __name__ == "__main__":
    main()
