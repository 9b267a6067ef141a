"""Object detection in a few lines."""

from .vision_model import VisionModel


class Detector(VisionModel):
    """A detector: train, evaluate, predict.

        detector = Detector('defocus_mamba_nano')
        detector.train(data='folder', epochs=50)
        detector.predict('photo.jpg')

    See :class:`~mmdefocus.apis.vision_model.VisionModel` for the arguments and attributes.
    """

    task = 'detection'
