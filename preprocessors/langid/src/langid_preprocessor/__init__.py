"""Language identification: the pre- and postprocessing of the `langid` model."""

from langid_preprocessor.preprocessor import (
    LABELS,
    UNDETERMINED,
    Label,
    LangId,
    Languages,
    Parameters,
)

__all__ = ["LABELS", "UNDETERMINED", "Label", "LangId", "Languages", "Parameters"]
