"""Pictures of images that a training evaluates on, with what is true and what the model predicts."""

from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from mmengine.runner import Runner

_THRESHOLD = 0.3


def draw_images(runner: Runner, out: Path) -> list[Path]:
    """Write a picture of every image of the validation set.

    Of a detector, the left half shows the true boxes, and the right half the predicted ones from a score of 0.3; of a
    classifier, the picture names the true and the predicted class.

    Args:
        runner: Runner of a finished training.
        out: Folder of the pictures.

    Returns:
        The pictures, in the order of the images.
    """
    dataset = runner.val_dataloader.dataset
    runner.visualizer.dataset_meta = dataset.metainfo
    runner.model.eval()
    paths: list[Path] = []
    for batch in runner.val_dataloader:
        with torch.no_grad():
            predicted = runner.model.val_step(batch)
        for sample in predicted:
            paths.append(out / f'{len(paths) + 1:02d}.png')
            image = _read(sample, dataset, len(paths) - 1)
            if runner.cfg.get('default_scope') == 'mmdet':
                runner.visualizer.add_datasample(
                    paths[-1].stem, image, sample.cpu(), pred_score_thr=_THRESHOLD, out_file=str(paths[-1])
                )
            else:
                runner.visualizer.visualize_cls(
                    image, sample.cpu(), classes=dataset.metainfo.get('classes'), resize=320, out_file=str(paths[-1])
                )
    return paths


def _read(sample: Any, dataset: Any, index: int) -> np.ndarray:
    """Return the image in RGB as its file has it; as the model gets it if there is no file."""
    if sample.get('img_path'):
        return mmcv.imread(sample.img_path, channel_order='rgb')
    pixels = dataset[index]['inputs'].permute(1, 2, 0).numpy()
    return np.ascontiguousarray(pixels[..., ::-1])
