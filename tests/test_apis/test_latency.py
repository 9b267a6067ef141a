"""Tests of the measured predictions. Times are not asserted."""

import dataclasses
import time
from pathlib import Path

import pytest
import torch

import mmdefocus.apis.latency as latency
from mmdefocus.apis.errors import UsageError
from mmdefocus.apis.runs.config_file import load_config
from mmdefocus.apis.timing.peak_memory import peak_bytes
from mmdefocus.apis.timing.predictions_difference import Difference, compare_predictions
from mmdefocus.apis.timing.time_limit import TimeLimitReached, time_limit

CONFIG = Path(__file__).parents[2] / 'configs/classification/defocus_mamba_nano_digits.py'


def measure(*variants: str, **options: object) -> list[latency.Latency]:
    cfg = load_config(CONFIG)
    return latency.measure_latency(cfg, None, 'cpu', variants, seconds=0.01, **options)  # type: ignore[arg-type]


def test_variants_are_timed_with_another_size() -> None:
    eager, bfloat16 = measure('eager', 'bfloat16', image_size=48, batch_size=2)
    for one in (eager, bfloat16):
        assert (one.image_size, one.batch_size, one.device) == ((48, 48), 2, 'cpu')
        assert one.milliseconds_median is not None
        assert one.p90 is not None
        assert 0 < one.milliseconds_median <= one.p90
        assert one.images_per_second == pytest.approx(2000 / one.milliseconds_median)
        assert one.peak_bytes is not None
        assert one.peak_bytes > 1e6
    assert (eager.difference, eager.note) == (None, '')
    assert bfloat16.difference is not None
    assert 0 < bfloat16.difference < 0.1
    assert bfloat16.note.startswith('largest difference of scores')
    assert dataclasses.asdict(eager)['variant'] == 'eager'


def test_a_variant_that_fails_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(module: object) -> None:
        raise RuntimeError('no compiler\nsecond line')

    monkeypatch.setattr(torch, 'compile', fail)
    compiled, eager = measure('compiled', 'eager')
    assert compiled.note == 'not timed: RuntimeError: no compiler'
    assert compiled.milliseconds_median is compiled.difference is compiled.peak_bytes is None
    assert eager.milliseconds_median is not None


def test_a_variant_that_takes_too_long_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, 'compile', lambda module: time.sleep(60))
    (compiled,) = measure('compiled', limit=0.05)
    assert compiled.note == 'not timed: it was not ready after 0.05 s'


def test_differences_beyond_the_bound_have_a_reason() -> None:
    excess = latency._excess
    assert excess('bfloat16', Difference(0.2), True).startswith('not timed: a score differs by 0.2 from the plain')
    assert excess('compiled', Difference(0.0, 3.0), True).startswith('not timed: a box differs by 3 pixels')
    assert excess('bfloat16', Difference(0.2), False) == ''
    assert excess('bfloat16', Difference(float('inf')), False) == 'not timed: it predicts scores that are not finite'


def test_differences_of_boxes() -> None:
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    def sample(boxes: list[list[float]], scores: list[float], labels: list[int]) -> DetDataSample:
        instances = InstanceData(bboxes=torch.tensor(boxes), scores=torch.tensor(scores), labels=torch.tensor(labels))
        return DetDataSample(pred_instances=instances)

    one = sample([[0.0, 0, 4, 4], [5, 5, 9, 9], [0, 0, 1, 1]], [0.9, 0.8, 0.1], [0, 1, 0])
    other = sample([[5.0, 5, 9, 11], [0, 0, 4, 4.5]], [0.9, 0.75], [1, 0])
    found = compare_predictions([one], [other])
    assert found.scores == pytest.approx(0.1)  # the weakest box is missing
    assert found.boxes == 2.0
    assert compare_predictions([one], [sample([[0.0, 0, 4, 4]], [float('nan')], [0])]).scores == float('inf')


def test_peak_memory_is_that_of_the_largest_moment() -> None:
    def work() -> torch.Tensor:
        return (torch.ones(1000, 1000) + 1).sum()

    assert 8e6 <= peak_bytes(work, torch.device('cpu')) < 9e6


def test_time_limit_ends_a_body_and_leaves_no_alarm() -> None:
    with pytest.raises(TimeLimitReached), time_limit(0.01):
        time.sleep(10)
    with time_limit(0.05):
        pass
    time.sleep(0.06)


def test_mistakes_are_named() -> None:
    with pytest.raises(UsageError, match='expected variants among eager, compiled, bfloat16, got fast'):
        measure('fast')
    with pytest.raises(UsageError, match='the batch size must be positive, got 0'):
        measure('eager', batch_size=0)
    with pytest.raises(UsageError, match='number of pixels'):
        measure('eager', image_size=-1)
