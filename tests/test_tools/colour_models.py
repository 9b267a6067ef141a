"""A detector and a classifier that memorise the colour of every class, so that names can be followed from end to end.

One training step writes the colour of each labelled object into the row of its label; predictions have the label of the
nearest colour. A wrong name anywhere is therefore a name that differs from the colour of the pixels.
"""

import torch
from mmdet.models import BaseDetector
from mmengine.registry import MODELS
from mmengine.structures import InstanceData
from mmpretrain.models import BaseClassifier
from mmpretrain.registry import MODELS as CLASSIFIERS
from torch import nn


class ColourHead(nn.Module):
    """Colours in rows, and what is common to all heads with classes."""

    def __init__(self, num_classes, predict_classes=None):
        super().__init__()
        self.num_classes = num_classes
        self.predict_classes = predict_classes
        self.colours = nn.Parameter(torch.full((num_classes, 3), -1000.0))

    def memorise(self, colour, label):
        self.colours.data[label] = colour

    def scores(self, colour):
        rows = self.colours if self.predict_classes is None else self.colours[self.predict_classes]
        return (1 - (rows - colour).abs().sum(dim=1) / 765).clamp(min=0)

    def zero(self):
        return {'loss': self.colours.sum() * 0}


@MODELS.register_module()
class ColourDetector(BaseDetector):
    """Finds the single coloured rectangle on a black image."""

    def __init__(self, num_classes, data_preprocessor):
        super().__init__(data_preprocessor=data_preprocessor)
        self.bbox_head = ColourHead(num_classes)

    def extract_feat(self, batch_inputs):
        return batch_inputs

    def _forward(self, batch_inputs, batch_data_samples=None):
        return batch_inputs

    def loss(self, batch_inputs, batch_data_samples):
        for image, sample in zip(batch_inputs, batch_data_samples, strict=True):
            for box, label in zip(sample.gt_instances.bboxes, sample.gt_instances.labels, strict=True):
                x, y = _centre(box.tensor if hasattr(box, 'tensor') else box)
                self.bbox_head.memorise(image[:, y, x], label)
        return self.bbox_head.zero()

    def predict(self, batch_inputs, batch_data_samples, rescale=True):
        for image, sample in zip(batch_inputs, batch_data_samples, strict=True):
            rows, columns = torch.nonzero(image.sum(dim=0) > 0, as_tuple=True)
            box = torch.stack((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)).float()
            x, y = _centre(box)
            score, label = self.bbox_head.scores(image[:, y, x]).max(dim=0)
            sample.pred_instances = InstanceData(bboxes=box[None], scores=score[None], labels=label[None])
        return batch_data_samples


def _centre(box):
    return box.reshape(2, 2).mean(dim=0).long()


@CLASSIFIERS.register_module()
class ColourClassifier(BaseClassifier):
    """Names the colour in the middle of an image."""

    def __init__(self, num_classes, predict_classes=None, data_preprocessor=None):
        preprocessor = {'type': 'ClsDataPreprocessor', 'num_classes': num_classes, **(data_preprocessor or {})}
        super().__init__(data_preprocessor=preprocessor)
        self.head = ColourHead(num_classes, predict_classes)

    def extract_feat(self, inputs):
        return inputs[:, :, 16, 16]

    def forward(self, inputs, data_samples=None, mode='tensor'):
        colours = self.extract_feat(inputs)
        if mode == 'loss':
            for colour, sample in zip(colours, data_samples, strict=True):
                self.head.memorise(colour, sample.gt_label.item())
            return self.head.zero()
        for colour, sample in zip(colours, data_samples, strict=True):
            scores = self.head.scores(colour)
            sample.set_pred_score(scores).set_pred_label(scores.argmax())
        return data_samples
