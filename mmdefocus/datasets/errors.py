"""Errors of files and folders that a data set cannot use. The tools print their message without a traceback."""


class DataError(ValueError):
    """Annotations or images are unreadable, contradictory or do not match the config."""


class MissingFileError(DataError, FileNotFoundError):
    """A file or folder that a data set needs does not exist."""
