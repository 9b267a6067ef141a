"""The error of a run that must not begin."""


class SetupError(ValueError):
    """Config, data and checkpoint of a run do not belong together. A tool shows the message without a traceback."""
