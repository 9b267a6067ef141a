"""The contract between the checkpoint code and a family of networks."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Literal

from torch import Tensor

from .name_map import NameMap

Kind = Literal['classification', 'detection']
KINDS: tuple[Kind, ...] = ('classification', 'detection')
BACKBONE = 'backbone.'
# Names of MMDetection's detectors outside the backbone, DINO included.
DETECTOR_PARTS = (
    r'(?:neck|rpn_head|roi_head|bbox_head|encoder|decoder|memory_trans_fc|memory_trans_norm|query_embedding'
    r'|dn_query_generator)\..+|level_embed'
)


class CheckpointFamily(ABC):
    """A family of networks whose official checkpoints load into models of this package.

    A subclass knows the parameter names of the official code and ours. Reading files, choosing weights, strictness,
    reports, and the loading hooks of the backbones are the same for all families and use only this interface.

    *Official names* are those of the files that the authors published. *Our names* are those of a whole model of
    MMPreTrain or MMDetection: ``backbone.*``, ``head.*``, ``neck.*`` and so on. Every collection of names may be
    incomplete or contain names of other networks; a method must not raise because of them.

    Attributes:
        name: Identifier of the family, unique among the registered ones.
        title: Name of the network in messages and reports.
        weights_entry: Entry with the weights of official classification files, ``'model'`` or ``'state_dict'``. Both
            are read; this one is written.
        average_entry: Entry of an official file with the moving average of the weights. A file need not have it.
        classifiers: Our names of the classification layers, each a ``Linear`` or a ``Sequential`` that ends in one.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    weights_entry: ClassVar[str] = 'model'
    average_entry: ClassVar[str] = 'model_ema'
    classifiers: ClassVar[tuple[str, ...]] = ('head.fc',)

    @abstractmethod
    def recognises_official(self, names: Collection[str]) -> bool:
        """Return True if these are official names of this family.

        Args:
            names: Names of a classifier, of a detector, or of the backbone alone.
        """

    @abstractmethod
    def recognises_ours(self, names: Collection[str]) -> bool:
        """Return True if these are our names of a model with a backbone of this family."""

    def official_kind(self, names: Collection[str]) -> Kind:
        """Return the kind of model that official names belong to; by default the prefix ``backbone.`` decides."""
        return 'detection' if any(name.startswith(BACKBONE) for name in names) else 'classification'

    @abstractmethod
    def from_official(self, names: Collection[str]) -> NameMap:
        """Map official names to ours.

        Args:
            names: Official names of a classifier, of a detector, or of the backbone alone.

        Returns:
            For each of our names its official source. The name map leaves unknown names out.
        """

    @abstractmethod
    def to_official(self, names: Collection[str], kind: Kind) -> NameMap:
        """Map our names to official ones; inverse of :meth:`from_official`.

        Args:
            names: Our names of a whole model.
            kind: Kind of official file.

        Returns:
            For each official name its source among ours. The name map leaves unknown names out.
        """

    def read_metadata(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Read from an official file what the backbone must know besides its weights.

        Args:
            content: Content of the whole file.

        Returns:
            Plain data that PyTorch passes to the loading hooks of the backbone as ``local_metadata``, such as the image
            size of the training. Empty by default.
        """
        return {}

    def write_metadata(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """Write the metadata of a backbone as an official file does; inverse of :meth:`read_metadata`.

        Args:
            metadata: ``local_metadata`` of the backbone. It may have other entries, such as PyTorch's ``version``.

        Returns:
            Entries of an official classification file, plain data. Empty by default.
        """
        return {}

    @abstractmethod
    def model_config(self, state_dict: Mapping[str, Tensor]) -> dict[str, dict[str, Any]]:
        """Infer the modules of a checkpoint from its names and shapes.

        Args:
            state_dict: State dict with our names that :meth:`recognises_ours`.

        Returns:
            For each part of the model (``'backbone'``, and where it is known ``'head'`` or ``'neck'``) a config that
            MMEngine's ``MODELS.build`` accepts. Parts that are left out are not checked.

        Raises:
            ValueError: A tensor that determines the sizes is missing.
        """

    def describe(self, state_dict: Mapping[str, Tensor]) -> list[str]:
        """Return lines about the network and its training for the report on a conversion.

        Args:
            state_dict: State dict with our names.
        """
        return [f'network    {self.title}']
