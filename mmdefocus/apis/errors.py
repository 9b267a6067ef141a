"""Error of a request that cannot be fulfilled as given."""


class UsageError(ValueError):
    """The request has a mistake. The message addresses the user; the tools print it without a traceback."""
