"""Constructors of optimisers whose parameter groups are as few as their settings allow."""

from typing import Any

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from .parameter_groups import describe_groups, merge_groups


class MergedGroupsMixin:
    """Merge the parameter groups with equal settings that another constructor makes.

    MMEngine makes a group of every parameter if there is a ``paramwise_cfg``. The optimiser then updates one parameter
    at a time, also with ``foreach`` or ``fused``. Put this class before the constructor:
    ``class MyConstructor(MergedGroupsMixin, OtherConstructor)``. The merged groups are logged.
    """

    optimizer_cfg: dict[str, Any]

    def add_params(self, params: list[dict[str, Any]], module: nn.Module, prefix: str = '', **kwargs: Any) -> None:
        """Append the merged parameter groups of ``module`` to ``params``."""
        super().add_params(params, module, prefix=prefix, **kwargs)  # type: ignore[misc]
        if not prefix:  # else a call for a submodule
            params[:] = merge_groups(params, module, self.optimizer_cfg)
            print_log(describe_groups(params), logger='current')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class DefocusOptimWrapperConstructor(MergedGroupsMixin, DefaultOptimWrapperConstructor):
    """MMEngine's default constructor with merged parameter groups; ``paramwise_cfg`` means the same."""
