"""Pictures of what the detections of a detector depend on.

Shapes: N detections, R and W rows and columns of the map of the image.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .detector_queries import DetectionMaps

COLUMNS = 4


def draw_detection_maps(
    image: np.ndarray, found: DetectionMaps, path: str | Path, classes: Sequence[str] | None = None
) -> None:
    """Draw the map and the box of every detection over the image, one panel each.

    The opacity of a cell is its share of the largest value of the map. Both colours differ for colour-blind readers.

    Args:
        image: The original image, (height, width, 3), RGB, uint8.
        found: Its detections.
        path: Picture to write.
        classes: Names of the classes; None for their indices.

    Raises:
        OSError: The picture cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    count = len(found.scores)
    columns = min(count, COLUMNS)
    rows = -(-count // columns)
    height, width = image.shape[:2]
    figure = Figure(figsize=(2.6 * columns, (2.6 * height / width + 0.35) * rows), layout='constrained', dpi=110)
    axes = figure.subplots(rows, columns, squeeze=False)
    grey = image.mean(axis=-1)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, box, score, label, values in zip(
        axes.flat[:count], found.boxes, found.scores, found.labels, found.maps, strict=True
    ):
        axis.imshow(grey, cmap='gray', vmin=0, vmax=255, extent=(0, width, height, 0))
        share = (values / values.max()).numpy()
        extent = (0, values.shape[1] * found.cell[1], values.shape[0] * found.cell[0], 0)
        axis.imshow(share, cmap='autumn', vmin=0, vmax=1, alpha=0.85 * share, extent=extent)
        left, upper, right, lower = box.tolist()
        for line_width, colour in ((3.0, 'black'), (1.5, 'cyan')):
            axis.add_patch(
                Rectangle((left, upper), right - left, lower - upper, fill=False, linewidth=line_width, color=colour)
            )
        axis.set(xlim=(0, width), ylim=(height, 0))
        name = classes[int(label)] if classes else f'class {int(label)}'
        axis.set_title(f'{name}  {score:.2f}', fontsize=10)
    figure.savefig(path)
