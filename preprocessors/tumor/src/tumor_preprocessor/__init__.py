"""The preprocessor of the `tumor` model: measurements of a breast mass → benign or malignant."""

from tumor_preprocessor.preprocessor import FEATURES, LABELS, TumorPreprocessor, Verdict

__all__ = ["FEATURES", "LABELS", "TumorPreprocessor", "Verdict"]
