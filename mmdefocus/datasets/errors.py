"""Errors of files and folders that a data set cannot use. A tool shows their message without a traceback."""


class DataError(ValueError):
    """Annotations or images are unreadable, contradict each other or do not fit the config."""


class MissingFileError(DataError, FileNotFoundError):
    """A file or folder that a data set needs does not exist."""
