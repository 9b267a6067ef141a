"""Time and memory of a whole prediction: plain, compiled, and in bfloat16."""

import copy
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import CheckpointLoader
from torch import nn

from mmdefocus.engine.float32_predictions import keep_predictions_in_float32

from .errors import UsageError
from .inferencer_checks import check_device
from .num_classes import IMAGENET_CLASSES, assume_num_classes, resolve_num_classes
from .timing.example_input import example_batch, with_image_size
from .timing.peak_memory import peak_bytes
from .timing.predictions_difference import Difference, compare_predictions
from .timing.time_limit import TimeLimitReached, time_limit
from .weights import load_all_weights

VARIANTS = ('eager', 'compiled', 'bfloat16')
SCORE_BOUNDS = {'compiled': 1e-3, 'bfloat16': 0.1}
BOX_BOUNDS = {'compiled': 1.0, 'bfloat16': 16.0}  # pixels
_COMPILED = ('backbone', 'neck')  # the other parts branch on values, which a compiler cannot follow
_LEAST_RUNS = 5


@dataclass(frozen=True)
class Latency:
    """Time and memory of a prediction.

    Attributes:
        variant: ``eager``, ``compiled`` (backbone and neck by ``torch.compile``) or ``bfloat16`` (automatic mixed
            precision).
        milliseconds_median: Median time of a batch, from the prepared images to the boxes or scores; None if the
            variant was not timed.
        p90: Time that nine of ten batches do not exceed, in milliseconds.
        images_per_second: Images per second at the median time.
        peak_bytes: Largest memory of weights and activations.
        threads: Threads of the CPU.
        device: ``cpu``, or the name of the GPU.
        note: Why there is no time, or what the reader must know about it.
        difference: Largest difference of a score to the plain network, 0 to 1; None for the plain network itself, and
            for a variant that failed.
        image_size: Height and width of an image in pixels.
        batch_size: Images in a batch.
    """

    variant: str
    milliseconds_median: float | None
    p90: float | None
    images_per_second: float | None
    peak_bytes: int | None
    threads: int
    device: str
    note: str = ''
    difference: float | None = None
    image_size: tuple[int, int] = (0, 0)
    batch_size: int = 1


def measure_latency(
    cfg: Config,
    weights: str | None,
    device: str | None = None,
    variants: Sequence[str] = VARIANTS,
    image_size: int | None = None,
    batch_size: int = 1,
    seconds: float = 3.0,
    limit: float = 120.0,
) -> list[Latency]:
    """Measure a whole prediction of one photograph that the test pipeline has prepared.

    Every variant first has to predict what the plain network predicts. One that fails, or differs by more than
    ``SCORE_BOUNDS`` in a score or ``BOX_BOUNDS`` in a confident box, has a note with the reason in place of a time.
    Initial weights have no bounds: their predictions are close to chance.

    Args:
        cfg: Config of a detector or a classifier. It is not changed.
        weights: Checkpoint file or URL; None for initial weights, with which the time is the same. Without weights,
            ``num_classes='auto'`` means the 1000 classes of ImageNet-1k, and the notes say so.
        device: Device; None for the GPU if there is one, and else the CPU.
        variants: Which of ``eager``, ``compiled`` and ``bfloat16`` to measure.
        image_size: Height and width of the images in pixels; None for those of the test pipeline.
        batch_size: Images in a batch.
        seconds: How long each variant is repeated; at least five runs.
        limit: Seconds that a variant may take to compile and check, in the main thread.

    Returns:
        One measurement per variant, in the order of `variants`.

    Raises:
        UsageError: A variant is unknown, the batch size or the time is not positive, or the config or the device
            cannot be used.
    """
    _check(variants, batch_size, seconds, limit)
    check_device(device)
    place = torch.device(device or ('cuda' if torch.cuda.is_available() else 'cpu'))
    cfg = copy.deepcopy(cfg) if image_size is None else with_image_size(cfg, image_size)
    assumed = weights is None and assume_num_classes(cfg)
    resolve_num_classes(cfg)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        model = MODELS.build(cfg.model)
        if weights is None:
            model.init_cfg = None  # initial weights of the modules; nothing is downloaded
        else:
            load_all_weights(model, CheckpointLoader.load_checkpoint(weights, map_location='cpu'), weights)
        model.to(place).eval()
        batch, shape = example_batch(cfg, batch_size)
        with torch.inference_mode():
            expected = model.test_step(copy.deepcopy(batch))
        bounded = weights is not None
        measured = [_measure(model, batch, name, expected, bounded, place, shape, seconds, limit) for name in variants]
    note = f'{IMAGENET_CLASSES} classes, as without data' if assumed else ''
    return [replace(one, note='; '.join(filter(None, (one.note, note)))) for one in measured]


def _check(variants: Sequence[str], batch_size: int, seconds: float, limit: float) -> None:
    unknown = [name for name in variants if name not in VARIANTS]
    if unknown or not variants:
        raise UsageError(f'expected variants among {", ".join(VARIANTS)}, got {", ".join(variants) or "none"}')
    for name, value in (('batch size', batch_size), ('number of seconds', seconds), ('time limit', limit)):
        if value <= 0:
            raise UsageError(f'the {name} must be positive, got {value}')


def _measure(
    model: Any,
    batch: dict[str, Any],
    variant: str,
    expected: Sequence[Any],
    bounded: bool,
    device: torch.device,
    shape: tuple[int, int],
    seconds: float,
    limit: float,
) -> Latency:
    former = {name: getattr(model, name) for name in _COMPILED if getattr(model, name, None) is not None}
    precision = torch.autocast(device.type, torch.bfloat16) if variant == 'bfloat16' else nullcontext()

    def predict() -> Any:
        with torch.inference_mode(), precision:
            return model.test_step(copy.deepcopy(batch))

    times: list[float] = []
    difference = Difference(0.0)
    memory: int | None = None
    try:
        with time_limit(limit):
            if variant == 'bfloat16':
                keep_predictions_in_float32(model)
            if variant == 'compiled':
                for name, module in former.items():
                    setattr(model, name, torch.compile(module))
            difference = compare_predictions(expected, predict())
            note = _excess(variant, difference, bounded)
        if not note:
            times = _repeat(predict, seconds, device)
            memory = peak_bytes(predict, device) + sum(map(_bytes, [*model.parameters(), *model.buffers()]))
            note = _explanation(variant, difference, sorted(former))
    except TimeLimitReached:
        note, difference = f'not timed: it was not ready after {limit:g} s', Difference(float('nan'))
    except Exception as error:  # noqa: BLE001 - a compiler or a kernel can fail in any way, and the table says how
        lines = str(error).strip().splitlines() or ['']
        note, difference = f'not timed: {type(error).__name__}: {lines[0][:300]}', Difference(float('nan'))
    finally:
        for name, module in former.items():
            setattr(model, name, module)
        if variant == 'compiled':
            torch.compiler.reset()
    median = 1e3 * float(np.median(times)) if times else None
    return Latency(
        variant,
        median,
        1e3 * float(np.quantile(times, 0.9)) if times else None,
        1e3 * len(expected) / median if median else None,
        memory,
        torch.get_num_threads(),
        torch.cuda.get_device_name(device) if device.type == 'cuda' else device.type,
        note,
        None if variant == 'eager' or np.isnan(difference.scores) else difference.scores,
        shape,
        len(expected),
    )


def _excess(variant: str, difference: Difference, bounded: bool) -> str:
    """Return why the predictions of a variant differ too much, or nothing."""
    if not np.isfinite(difference.scores):
        return 'not timed: it predicts scores that are not finite'
    if not bounded:
        return ''
    scores, boxes = SCORE_BOUNDS.get(variant, 0.0), BOX_BOUNDS.get(variant, 0.0)
    if not difference.scores <= scores:
        return f'not timed: a score differs by {difference.scores:.2g} from the plain network, more than {scores:g}'
    if difference.boxes is not None and not difference.boxes <= boxes:
        return f'not timed: a box differs by {difference.boxes:.2g} pixels from the plain network, more than {boxes:g}'
    return ''


def _explanation(variant: str, difference: Difference, compiled: Sequence[str]) -> str:
    if variant == 'eager':
        return ''
    boxes = '' if difference.boxes is None else f', of boxes {difference.boxes:.2g} pixels'
    parts = f'{" and ".join(compiled)} compiled; ' if variant == 'compiled' else ''
    return f'{parts}largest difference of scores {difference.scores:.2g}{boxes}'


def _repeat(predict: Callable[[], Any], seconds: float, device: torch.device) -> list[float]:
    """Return the times of repeated runs, in seconds, after one that does not count."""
    predict()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < _LEAST_RUNS or time.perf_counter() < end:
        if device.type == 'cuda':
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        predict()
        if device.type == 'cuda':
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return times


def _bytes(tensor: nn.Parameter | torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()
