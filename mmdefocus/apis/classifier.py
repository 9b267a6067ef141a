"""Image classification in a few lines."""

from .vision_model import VisionModel


class Classifier(VisionModel):
    """A classifier: train, evaluate, predict.

        classifier = Classifier('defocus_mamba_nano')
        classifier.train(data='folder', epochs=12)
        classifier.predict('photo.jpg')

    See :class:`~mmdefocus.apis.vision_model.VisionModel` for the arguments and attributes.
    """

    task = 'classification'
