"""FLOP formulas of the operators, for torch's ``FlopCounterMode`` and for MMEngine's counter.

Conventions: every multiplication, addition and exponential is one FLOP. A multiply-add is two, as in torch's counts of
matrix products; a counter that takes a multiply-add as one gets half. A sum of k terms is k additions. The formulas
count the recurrence of the reference, whatever a backend recomputes. Element-wise operations around it (bias, softplus,
rotation, norm, gate) are left out, as torch leaves them out in all networks; a fused operator therefore counts as much
as the chain of operators that it replaces.
"""

from collections.abc import Callable, Sequence

import torch
from torch.utils.flop_counter import register_flop_formula

Shape = Sequence[int]

# Operator name → FLOPs, given the arguments of the operator with shapes in place of tensors.
FLOP_FORMULAS: dict[str, Callable[..., int]] = {}


def register_formula(op: str, formula: Callable[..., int]) -> None:
    """Add the formula of the operator ``mmdefocus::<op>``, and give it to torch if the operator exists.

    The compiled operators do not exist without the extension.
    """
    FLOP_FORMULAS[op] = formula
    if hasattr(torch.ops.mmdefocus, op):
        register_flop_formula(getattr(torch.ops.mmdefocus, op))(formula)
