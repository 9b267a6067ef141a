"""Values of statistics as JSON has them."""

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np


def json_values(value: Any) -> Any:
    """Return dataclasses and mappings as dicts, arrays and tuples as lists, and numbers that are not finite as None."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: json_values(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): json_values(one) for key, one in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return json_values(value.tolist())
    if isinstance(value, list | tuple):
        return [json_values(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
