"""Where non-finite values of a training step come from, and which of several origins counts."""

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from .magnitudes import Magnitudes

# Their results hold whatever was in memory.
_UNINITIALISED = {'empty', 'empty_like', 'empty_strided', 'empty_permuted', 'new_empty', 'new_empty_strided', 'resize_'}
# They write a given constant, of which an infinity is meant.
_CONSTANTS = {'full', 'full_like', 'new_full', 'fill', 'fill_', 'masked_fill', 'masked_fill_', 'scalar_tensor'}
_CONSTANTS.add('constant_pad_nd')

OperatorKey = tuple[str, str, str, int]
Summaries = tuple[tuple[int, Magnitudes], ...]  # numbers of arguments and their values


@dataclass(frozen=True)
class Origin:
    """Where non-finite values come from.

    Attributes:
        kind: ``operator`` made them of finite inputs; ``constant``: they were written on purpose; ``weights`` or
            ``data``: they were there before the step; ``outside``: code other than PyTorch operators made them;
            ``uninitialised``: memory that nothing has written yet.
        tensor: Name of the parameter or buffer, for the kind ``weights``.
        module: Name of the module that ran; ``''`` is the model itself. This and the following attributes describe the
            operator that made the values or, for the other kinds, that read them first.
        operator: Name of the operator, such as ``aten::exp`` or ``mmdefocus::defocus_scan``.
        node: Name of the step of the backward pass, such as ``SqrtBackward0``, or ``''`` in the forward pass.
        key: Identifies the call in a repetition of the step.
        inputs: Numbers of the floating-point arguments, counted from 0, and their values.
        output: Values of the first non-finite output.
        samples: Numbers of the images of the batch with non-finite values, where the output tells.
        order: Number of the operator in the step.
        calls: Number of calls of modules that had begun.
    """

    kind: str
    tensor: str = ''
    module: str = ''
    operator: str = ''
    node: str = ''
    key: OperatorKey | None = None
    inputs: Summaries = ()
    output: Magnitudes | None = None
    samples: tuple[int, ...] = ()
    order: int = -1
    calls: int = 0

    @property
    def harmless(self) -> bool:
        """Return True if infinities of this origin are no fault by themselves."""
        return self.kind in ('constant', 'uninitialised')


def inherited(parents: list[Origin], have_nan: list[bool], output: Tensor) -> Origin | None:
    """Return the origin of an output of non-finite inputs, or None if the operator itself is the origin."""
    has_nan = bool(output.isnan().any())
    # An infinity beside a NaN may be one that the operator does not select.
    passed_on = (
        [x for x, is_nan in zip(parents, have_nan, strict=True) if is_nan] if has_nan and any(have_nan) else parents
    )
    faults = [origin for origin in passed_on if not origin.harmless]
    if faults:
        return min(faults, key=lambda origin: origin.order)
    return parents[0] if parents and not (has_nan and not any(have_nan)) else None


def kind_of_new(function: Any, args: Any) -> str:
    name = function._schema.name.removeprefix('aten::')
    if name in _UNINITIALISED:
        return 'uninitialised'
    has_infinity = any(isinstance(x, float) and not math.isfinite(x) for x in tree_leaves(args))
    return 'constant' if name in _CONSTANTS and has_infinity else 'operator'


def kind_of_unknown(function: Any, tensor: Tensor) -> str:
    """Return the kind of values that no operator has made; ``torch.tensor(math.inf)`` makes them by ``lift_fresh``."""
    is_new = function._schema.name in ('aten::lift_fresh', 'aten::lift_fresh_copy')
    return 'constant' if is_new and not tensor.isnan().any() else 'outside'
