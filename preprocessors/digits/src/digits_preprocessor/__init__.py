"""The preprocessor of the `digits` model: an image of one handwritten digit → which digit."""

from digits_preprocessor.preprocessor import Digit, DigitImage, DigitsPreprocessor

__all__ = ["Digit", "DigitImage", "DigitsPreprocessor"]
