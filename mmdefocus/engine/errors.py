"""Error of a run with inconsistent settings."""


class SetupError(ValueError):
    """Config, data and checkpoint of a run contradict each other. The tools print the message without a traceback."""
