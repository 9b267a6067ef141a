"""FLOP formulas of the operators for MMEngine's counter; importing this module registers them."""

from collections.abc import Callable
from typing import Any

from mmengine.analysis.complexity_analysis import _DEFAULT_SUPPORTED_FLOP_OPS
from mmengine.analysis.jit_handles import get_shape

from mmdefocus.ops.flops import FLOP_FORMULAS


def _make_handle(formula: Callable[..., int]) -> Callable[[list[Any], list[Any]], int]:
    def count(inputs: list[Any], outputs: list[Any]) -> int:
        # MMEngine counts a multiply-add as one FLOP.
        return formula(*map(get_shape, inputs)) // 2

    return count


# `get_model_complexity_info` accepts no handles as arguments; it reads this table.
_DEFAULT_SUPPORTED_FLOP_OPS.update(
    {f'mmdefocus::{name}': _make_handle(formula) for name, formula in FLOP_FORMULAS.items()}
)
