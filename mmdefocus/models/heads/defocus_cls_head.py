"""Classification head with the auxiliary loss on the image tokens.

Shapes: B batch, L tokens (class token included), C in_channels, K num_classes.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from ..imagenet21k import NUM_CLASSES_1K, NUM_CLASSES_21K, imagenet1k_indices
from ..precision import at_least_float32

AUX_FORMS = ('token', 'pool', None)


@MODELS.register_module()
class DefocusClsHead(BaseModule):
    """Main logits from the class token, auxiliary logits from the image tokens (section 3 of the paper).

    Use it in MMPreTrain's ``ImageClassifier`` with a backbone of ``out_type='raw'``. The auxiliary loss makes every
    token useful for the classification, which keeps a causal network from focusing on a few tokens. Prediction uses
    the main logits alone.

    Args:
        num_classes: K.
        in_channels: C, the backbone's ``embed_dims``.
        hidden_dims: None for linear heads; else the width of the hidden layer of Linear – Tanh – Linear heads. The
            published ImageNet-21k models, and those fine-tuned from them, have ``3 * in_channels``.
        aux: ``'token'``: logits of every image token, their losses averaged (as the published code does).
            ``'pool'``: logits of the average of the image tokens (as the paper describes). None: no auxiliary head.
        aux_weight: Weight of the auxiliary loss, from 0 to 1. The main loss has the weight ``1 - aux_weight``.
        loss: Config of a loss of MMPreTrain for logits (N, K) and labels (N,) or scores (N, K).
        predict_classes: Indices of the classes that a prediction contains, in this order; None means all.
            ``'imagenet1k'`` selects the classes of ImageNet-1k from the 21,841 of ImageNet-21k. Only :meth:`predict`
            uses it.
        from_imagenet21k: True to accept weights for the 21,841 classes of ImageNet-21k, too, and load their rows for
            the 1000 classes of ImageNet-1k.
        topk: The k of the top-k accuracies that ``cal_acc`` computes.
        cal_acc: True to compute accuracies in training; needs labels, so no mixup, CutMix or similar augmentation.
        init_cfg: MMEngine's initialisation; the published one by default.

    Raises:
        ValueError: An argument is outside its range.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        hidden_dims: int | None = None,
        aux: str | None = 'token',
        aux_weight: float = 0.5,
        loss: dict | nn.Module = dict(type='mmpretrain.CrossEntropyLoss'),  # noqa: B006 (never changed)
        predict_classes: str | Sequence[int] | None = None,
        from_imagenet21k: bool = False,
        topk: int | Sequence[int] = 1,
        cal_acc: bool = False,
        init_cfg: dict | list[dict] | None = dict(type='TruncNormal', layer='Linear', std=0.02, bias=0.0),  # noqa: B006
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if num_classes == 'auto':
            raise ValueError(
                "num_classes='auto' is the number of classes of the training set, which the tools fill in (in Python: "
                'mmdefocus.apis.num_classes.resolve_num_classes); build the head with a number, as in '
                'get_model(config, head=dict(num_classes=10))'
            )
        for name, value in (('num_classes', num_classes), ('in_channels', in_channels), ('hidden_dims', hidden_dims)):
            if value is not None and value < 1:
                raise ValueError(f'{name} must be positive, got {value}')
        if aux not in AUX_FORMS:
            raise ValueError(f'aux must be one of {list(AUX_FORMS)}, got {aux!r}')
        if not 0 <= aux_weight <= 1:
            raise ValueError(f'aux_weight must be from 0 to 1, got {aux_weight}')
        if from_imagenet21k and num_classes != NUM_CLASSES_1K:
            raise ValueError(
                f'from_imagenet21k=True reduces heads of {NUM_CLASSES_21K:,} classes to {NUM_CLASSES_1K}, got '
                f'num_classes={num_classes}'
            )
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.hidden_dims = hidden_dims
        self.aux = aux
        self.aux_weight = aux_weight
        self.topk = (topk,) if isinstance(topk, int) else tuple(topk)
        self.cal_acc = cal_acc
        self.loss_module = loss if isinstance(loss, nn.Module) else MODELS.build(loss)
        self.fc = self._make_classifier()
        self.aux_fc = self._make_classifier() if aux else None
        self.register_buffer('predict_classes', self._class_indices(predict_classes), persistent=False)
        if from_imagenet21k:
            self._register_load_state_dict_pre_hook(_reduce_to_imagenet1k)

    def _make_classifier(self) -> nn.Module:
        if self.hidden_dims is None:
            return nn.Linear(self.in_channels, self.num_classes)
        hidden = nn.Linear(self.in_channels, self.hidden_dims)
        return nn.Sequential(hidden, nn.Tanh(), nn.Linear(self.hidden_dims, self.num_classes))

    def _class_indices(self, classes: str | Sequence[int] | None) -> Tensor | None:
        if classes is None:
            return None
        if isinstance(classes, str):
            if classes != 'imagenet1k':
                raise ValueError(f"predict_classes must be a list of indices, 'imagenet1k' or None, got {classes!r}")
            classes = imagenet1k_indices()
        if not classes or len(set(classes)) < len(classes):
            raise ValueError(f'predict_classes must be distinct indices, at least one, got {list(classes)}')
        if not 0 <= min(classes) <= max(classes) < self.num_classes:
            raise ValueError(
                f'predict_classes must be from 0 to num_classes - 1 = {self.num_classes - 1}, got indices from '
                f'{min(classes)} to {max(classes)}'
            )
        return torch.tensor(classes)

    def pre_logits(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Return the features before the last linear layer of the main head.

        Args:
            feats: Outputs of the backbone. The last one is used: the sequence (B, L, C) with the class token last, or
                the class token (B, C).

        Returns:
            Features (B, C), or (B, hidden_dims) with a hidden layer.

        Raises:
            ValueError: The features have another rank or width.
        """
        tokens = feats[-1]
        if tokens.ndim not in (2, 3) or tokens.shape[-1] != self.in_channels:
            raise ValueError(
                f'expected features (batch, tokens, {self.in_channels}) or (batch, {self.in_channels}) for '
                f'in_channels={self.in_channels}, got {tuple(tokens.shape)}; in_channels must be the embed_dims of the '
                "backbone, whose out_type must be 'raw' (or 'cls_token', with aux=None)"
            )
        cls_token = tokens[:, -1] if tokens.ndim == 3 else tokens
        return self.fc[:-1](cls_token) if isinstance(self.fc, nn.Sequential) else cls_token

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Compute the main logits (B, K) of all classes; ``feats`` as in :meth:`pre_logits`."""
        last = self.fc[-1] if isinstance(self.fc, nn.Sequential) else self.fc
        return last(self.pre_logits(feats))

    def loss(self, feats: tuple[Tensor, ...], data_samples: list[Any]) -> dict[str, Tensor]:
        """Compute the losses.

        Args:
            feats: As in :meth:`pre_logits`; with an auxiliary head, the whole sequence.
            data_samples: One MMPreTrain ``DataSample`` per image, with ``gt_score`` (K,) from batch augmentations or
                ``gt_label``.

        Returns:
            ``loss_cls`` and, with an auxiliary head, ``loss_aux``, already multiplied by 1 - aux_weight and
            aux_weight: MMEngine logs both and minimises their sum. With ``cal_acc`` also ``accuracy_top-k``.

        Raises:
            ValueError: Features of a different shape, a label outside 0 … K - 1, or scores of a length other than K.
        """
        logits = at_least_float32(self(feats))  # (B, K)
        target = self._target(data_samples)
        losses = {'loss_cls': self.loss_module(logits, target, avg_factor=len(target))}
        if self.aux_fc is not None:
            losses['loss_cls'] = losses['loss_cls'] * (1 - self.aux_weight)
            losses['loss_aux'] = self._aux_loss(feats[-1], target) * self.aux_weight
        if self.cal_acc:
            losses |= self._accuracy(logits, target)
        return losses

    def _aux_loss(self, tokens: Tensor, target: Tensor) -> Tensor:
        assert self.aux_fc is not None
        if tokens.ndim != 3:
            raise ValueError(
                f'aux={self.aux!r} needs the image tokens, features (batch, tokens, {self.in_channels}), got '
                f"{tuple(tokens.shape)}; set out_type='raw' in the backbone"
            )
        image_tokens = tokens[:, :-1]
        if self.aux == 'pool':
            image_tokens = image_tokens.mean(dim=1, keepdim=True)
        logits = at_least_float32(self.aux_fc(image_tokens))  # (B, L - 1, K)
        # All tokens of an image share one target: vmap avoids repeating it to the size of the logits.
        # `forward` instead of the module: hooks of the loss module cannot read tensors inside vmap.
        loss = partial(self.loss_module.forward, avg_factor=len(target))
        return torch.vmap(loss, in_dims=(1, None))(logits, target).mean()

    def _target(self, data_samples: list[Any]) -> Tensor:
        """Return scores (B, K) or labels (B,)."""
        if 'gt_score' in data_samples[0]:
            scores = torch.stack([sample.gt_score for sample in data_samples])
            if scores.shape[1] != self.num_classes:
                raise ValueError(
                    f'expected scores of num_classes={self.num_classes} classes, got {scores.shape[1]}; give '
                    'data_preprocessor.num_classes and head.num_classes the same number'
                )
            return scores
        labels = torch.cat([sample.gt_label for sample in data_samples])
        check_labels(labels, self.num_classes)
        return labels

    def _accuracy(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        from mmpretrain.evaluation import Accuracy

        if labels.ndim != 1:
            raise ValueError('cal_acc=True needs labels, got scores of a batch augmentation; set cal_acc=False')
        accuracies = Accuracy.calculate(logits, labels, topk=self.topk)  # one threshold each
        return {f'accuracy_top-{k}': accuracy for k, (accuracy,) in zip(self.topk, accuracies, strict=True)}

    def predict(self, feats: tuple[Tensor, ...], data_samples: list[Any] | None = None) -> list[Any]:
        """Predict with the main head.

        Args:
            feats: As in :meth:`pre_logits`.
            data_samples: MMPreTrain's ``DataSample`` of every image, to which the results are added; None, or a None in
                the list, creates one.

        Returns:
            Data samples with ``pred_score``, one per class of ``predict_classes``, and ``pred_label``, its argmax.
        """
        from mmpretrain.structures import DataSample

        logits = self(feats)
        if self.predict_classes is not None:
            logits = logits[:, self.predict_classes]
        scores = at_least_float32(logits).softmax(dim=1)
        samples = [DataSample() if sample is None else sample for sample in data_samples or [None] * len(scores)]
        for sample, score in zip(samples, scores, strict=True):
            # Batch augmentations leave scores of all classes in a sample, which then rejects another number of them.
            sample.set_metainfo(dict(num_classes=len(score)))
            sample.set_pred_score(score).set_pred_label(score.argmax())
        return samples


def _reduce_to_imagenet1k(state_dict: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Keep the rows of ImageNet-1k in last layers of 21,841 classes before a head loads them."""
    for key, value in state_dict.items():
        if key.startswith(prefix) and len(value) == NUM_CLASSES_21K:
            state_dict[key] = value[imagenet1k_indices()]


def check_labels(labels: Tensor, num_classes: int) -> None:
    """Raise a ValueError if there is a label outside 0 … num_classes - 1."""
    lowest, highest = labels.min().item(), labels.max().item()
    if lowest < 0 or highest >= num_classes:
        raise ValueError(
            f'expected labels from 0 to {num_classes - 1} (num_classes={num_classes}), got '
            f'{lowest if lowest < 0 else highest}; data set and head have different classes: set num_classes of the '
            'head to the number of classes of the data set'
        )
