"""How `langid` is made: catalogues → split → n-gram features → training → evaluation → files.

Nothing here uses the `langid-preprocessor` package: its golden cases come from this code.
"""
