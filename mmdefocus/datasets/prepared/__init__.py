"""Data sets of users: found, read, split and written in the form that the data sets of this package read."""

from .duplicates import Duplicate, find_duplicates
from .formats import read_data
from .preparation import prepare_data, write_data
from .prepared_files import load_prepared
from .source_data import (
    Format,
    PreparedData,
    PreparedSplit,
    ReadingProblem,
    SourceData,
    SourceSplit,
    Task,
)
from .splitting import split_data

__all__ = [
    'Duplicate',
    'Format',
    'PreparedData',
    'PreparedSplit',
    'ReadingProblem',
    'SourceData',
    'SourceSplit',
    'Task',
    'find_duplicates',
    'load_prepared',
    'prepare_data',
    'read_data',
    'split_data',
    'write_data',
]
