"""Why an analysis ended without a figure."""


class AnalysisError(Exception):
    """A tool failed, or code holds an instruction that no table knows; the text says which."""
