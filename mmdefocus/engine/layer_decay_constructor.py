"""Constructor of optimisers with a learning rate per layer."""

from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from mmpretrain.engine.optimizers import LearningRateDecayOptimWrapperConstructor

from .merged_groups_constructor import MergedGroupsMixin


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class DefocusLayerDecayOptimWrapperConstructor(MergedGroupsMixin, LearningRateDecayOptimWrapperConstructor):
    """MMPreTrain's constructor with merged parameter groups: at most two per layer, with and without weight decay."""
