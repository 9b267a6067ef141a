"""What is wrong with a data set of a user, and repairs of it."""

from .findings import DataReport, Example, Finding
from .inspect_data import inspect_data, inspect_repaired
from .repaired_files import write_source
from .repairs import REPAIRS, repair_data

__all__ = [
    'REPAIRS',
    'DataReport',
    'Example',
    'Finding',
    'inspect_data',
    'inspect_repaired',
    'repair_data',
    'write_source',
]
