"""Search for the operator that makes the first non-finite value of a training step.

Masks hold infinities on purpose, and an infinity that is masked out does no harm. So the search follows the non-finite
values of every tensor back to the operator that made them, and the result of the step selects one of these origins.
"""

import bisect
import itertools
from collections import Counter
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .magnitudes import Magnitudes, is_finite, is_float, largest_of, magnitudes
from .module_calls import observed_modules
from .non_finite_origin import OperatorKey, Origin, Summaries, inherited, kind_of_new, kind_of_unknown
from .plain_batch import tensors_of
from .random_draws import RandomDraws


@dataclass
class ModuleCall:
    """One call of a module: its name, class, and the magnitudes of the largest input and output with numbers."""

    name: str
    kind: str
    number: int
    inner_calls: int = 0
    input: Magnitudes | None = None
    output: Magnitudes | None = None


@dataclass
class _Running:
    call: ModuleCall
    is_in_backward: bool = field(default_factory=lambda: _node() is not None)


class OperatorWatch(TorchDispatchMode):
    """Context in which a model runs forward and backward.

    Every operator waits for the GPU: this is for the repetition of a single step.

    Args:
        model: Model.
        batch: Arguments of its call.
        draws: Random numbers that another watch has recorded, to be used again in another floating-point type; None
            records them.
        look_at: Operator of another watch whose inputs and output are summarised here too.

    Attributes:
        calls: Calls of modules in the order of their beginning.
        latest: Origin of the newest non-finite result that was not made on purpose.
        seen: Inputs and output of ``look_at``.
        draws: Random numbers of the step.
    """

    def __init__(
        self, model: nn.Module, batch: Any, draws: RandomDraws | None = None, look_at: OperatorKey | None = None
    ) -> None:
        super().__init__()
        self.calls: list[ModuleCall] = []
        self.latest: Origin | None = None
        self.seen: tuple[Summaries, Magnitudes] | None = None
        self.draws = RandomDraws() if draws is None else draws.again()
        self._look_at = look_at
        self._model = model
        self._batch_size = next((len(tensor) for tensor in tensors_of(batch) if tensor.dim() > 1), 0)
        self._weight_shapes = {parameter.shape for parameter in model.parameters()}
        self._running: list[_Running] = []
        self._numbers: Counter[Any] = Counter()
        self._order = itertools.count()
        self._observation: AbstractContextManager[None] | None = None
        self._is_observing = False
        # A step of the backward pass belongs to the module that ran when autograd recorded it.
        self._recorded: list[tuple[int, str]] = [(0, '')]
        self._origins: dict[int, Origin] = {}  # by storage
        for name, parameter in model.named_parameters():
            self._mark(parameter, Origin('weights', name))
        for name, buffer in model.named_buffers():
            # An attention mask is a buffer with infinities.
            self._mark(buffer, Origin('weights' if bool(buffer.isnan().any()) else 'constant', name))
        for tensor in tensors_of(batch):
            self._mark(tensor, Origin('data'))

    def __enter__(self) -> 'OperatorWatch':
        self._observation = observed_modules(self._model, self._enter_module, self._leave_module)
        self._observation.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        assert self._observation is not None
        self._observation.__exit__(*error)

    def origin_of(self, tensor: Tensor) -> Origin | None:
        """Return the origin of the non-finite values of a result; None if it is finite."""
        if not is_float(tensor) or is_finite(tensor):
            return None
        return self._origins.get(_storage(tensor)) or Origin('outside', module=self._module())

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if self._is_observing:
            return function(*args, **kwargs)
        with torch._C.DisableTorchFunction():  # a mode around this one may convert types
            return self._call(function, args, kwargs)

    def _call(self, function: Any, args: Any, kwargs: dict) -> Any:
        inputs = [(number, x) for number, x in enumerate(tree_leaves((args, kwargs))) if is_float(x)]
        key = self._key(function)
        # An operator that works in place overwrites its input.
        looks = key == self._look_at
        before = _summarised(inputs) if looks or function._schema.is_mutable else None
        bad = [x for _, x in inputs if not is_finite(x)]
        have_nan = [bool(x.isnan().any()) for x in bad]
        shared = {_storage(x) for _, x in inputs}
        result = self.draws.call(function, args, kwargs)
        outputs = [x for x in tree_leaves(result) if is_float(x)]
        if looks and outputs:
            self.seen = (before or (), magnitudes(outputs[0]))
        order = next(self._order)
        parents = [self._origins.get(_storage(x)) or Origin(kind_of_unknown(function, x)) for x in bad]
        if any(origin.key is None for origin in parents):
            reader = self._described(function, key, before or _summarised(inputs), outputs, order)
            parents = [
                origin if origin.key else replace(reader, kind=origin.kind, tensor=origin.tensor) for origin in parents
            ]
            self._origins.update(zip(map(_storage, bad), parents, strict=True))
        for output in outputs:
            storage = _storage(output)
            if is_finite(output):
                if storage not in shared or output.nbytes == output.untyped_storage().nbytes():
                    self._origins.pop(storage, None)
                continue
            origin = inherited(parents, have_nan, output)
            if origin is None:
                summaries = _summarised(inputs) if before is None else before
                described = self._described(function, key, summaries, [output], order)
                origin = replace(described, kind=kind_of_new(function, args))
            elif not origin.samples and storage in shared:  # a view that may separate the images
                origin = replace(origin, samples=self._samples(output))
            self._origins[storage] = origin
            if not origin.harmless:
                self.latest = origin
        return result

    def _described(
        self, function: Any, key: OperatorKey, inputs: Summaries, outputs: list[Tensor], order: int
    ) -> Origin:
        return Origin(
            kind='',
            module=key[0],
            operator=function._schema.name,
            node=key[1],
            key=key,
            inputs=inputs,
            output=magnitudes(outputs[0]) if outputs else None,
            samples=self._samples(outputs[0]) if outputs else (),
            order=order,
            calls=len(self.calls),
        )

    def _samples(self, output: Tensor) -> tuple[int, ...]:
        """Return the numbers of the images with non-finite values; none if the output has no dimension of images."""
        if output.dim() < 2 or len(output) != self._batch_size or output.shape in self._weight_shapes:
            return ()
        return tuple((~output.isfinite()).flatten(1).any(1).nonzero().flatten().tolist())

    def _mark(self, tensor: Tensor, origin: Origin) -> None:
        if is_float(tensor) and not is_finite(tensor):
            self._origins[_storage(tensor)] = origin

    def _key(self, function: Any) -> OperatorKey:
        node = _node()
        name = (self._module(), '' if node is None else node.name(), function._schema.name)
        self._numbers[name] += 1
        return *name, self._numbers[name]

    def _module(self) -> str:
        """Return the name of the module to which the present operator belongs."""
        node = _node()
        if self._running and (node is None or self._running[-1].is_in_backward):
            return self._running[-1].call.name
        if node is None:
            return ''
        number = node._sequence_nr()
        return self._recorded[bisect.bisect_right(self._recorded, number, key=lambda entry: entry[0]) - 1][1]

    def _enter_module(self, name: str, inputs: Any) -> None:
        self._numbers[name] += 1
        call = ModuleCall(name, type(self._model.get_submodule(name)).__name__, self._numbers[name])
        call.input = self._largest(inputs)
        for running in self._running:
            running.call.inner_calls += 1
        self.calls.append(call)
        self._running.append(_Running(call))
        self._recorded.append((torch._C._autograd._get_sequence_nr(), name))

    def _leave_module(self, name: str, output: Any) -> None:
        self._running.pop().call.output = self._largest(output)
        self._recorded.append((torch._C._autograd._get_sequence_nr(), self._module()))

    def _largest(self, values: Any) -> Magnitudes | None:
        """Summarise the tensor with the largest magnitude; NaN is the largest."""
        self._is_observing = True
        try:
            with torch._C.DisableTorchFunction():
                return largest_of(magnitudes(x) for x in tensors_of(values) if is_float(x))
        finally:
            self._is_observing = False


def _summarised(inputs: list[tuple[int, Tensor]]) -> Summaries:
    return tuple((number, magnitudes(x)) for number, x in inputs)


def _node() -> Any:
    return torch._C._current_autograd_node()


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
