"""The search for a batch size, with trials whose memory is a straight line."""

import logging

import pytest
from mmengine.config import Config

from mmdefocus.apis import batch_size as module
from mmdefocus.apis.batch_size import find_batch_size
from mmdefocus.apis.errors import UsageError
from mmdefocus.engine.memory_trial import LargestBatch, Measurement

MIB = 2**20
FIXED, PER_IMAGE = 100 * MIB, 50 * MIB


@pytest.fixture
def trials(monkeypatch):
    """Replace trials and data; returns the sizes that were tried, and takes changes of the memory by size."""

    class Trials:
        tried: list[int] = []  # noqa: RUF012 (one per test)
        changes: dict[int, object] = {}  # noqa: RUF012
        images = 100

        def __init__(self, *args):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *args):
            pass

        def measure(self, count):
            Trials.tried.append(count)
            change = Trials.changes.get(count, 0)
            if isinstance(change, str):
                return Measurement(count, 0, change)
            return Measurement(count, FIXED + PER_IMAGE * count + change)

    Trials.tried.clear()
    Trials.changes.clear()
    monkeypatch.setattr(module, 'MemoryTrials', Trials)
    monkeypatch.setattr(module, 'training_device', lambda: 'cpu')
    monkeypatch.setattr(
        module, 'largest_batch', lambda cfg: LargestBatch(Trials.images, (40, 60), (60, 60), 7, assumed=Trials.assumed)
    )
    Trials.assumed = ()
    return Trials


def config(base=16, **changes):
    cfg = Config(
        dict(
            model=dict(type='Detector', backbone=dict(type='Plain')),
            train_dataloader=dict(batch_size=8),
            optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3)),
            **changes,
        )
    )
    if base:
        cfg.auto_scale_lr = dict(base_batch_size=base, enable=True)
    return cfg


def test_the_base_batch_size_fits(trials):
    found = find_batch_size(config(), 'auto', 10_000 * MIB)
    assert trials.tried == [2, 4, 16]
    assert (found.batch_size, found.peak_bytes, found.limit_bytes) == (16, 900 * MIB, 10_000 * MIB)
    assert (found.per_image_bytes, found.fixed_bytes, found.device) == (PER_IMAGE, FIXED, 'cpu')
    assert found.describe() == (
        'batch of 16: peak 900 MiB of 9.8 GiB (cpu, images of up to 60x60 pixels with up to 7 objects)'
    )


def test_the_memory_decides(trials):
    assert find_batch_size(config(), 'auto', 660 * MIB).batch_size == 11
    assert trials.tried == [2, 4, 11]


def test_a_wrong_extrapolation_is_halved(trials):
    trials.changes[11] = 'killed'
    assert find_batch_size(config(), 'auto', 660 * MIB).batch_size == 5


def test_small_limits(trials):
    assert find_batch_size(config(), 'auto', 250 * MIB).batch_size == 3
    trials.tried.clear()
    trials.changes[4] = 'out of memory'
    assert find_batch_size(config(), 'auto', 210 * MIB).batch_size == 2
    assert find_batch_size(config(), 'auto', 190 * MIB).batch_size == 1


def test_nothing_fits(trials):
    with pytest.raises(
        UsageError,
        match=r'a batch of 1 image of up to 60x40 pixels with up to 7 objects needs 150 MiB, and the training may take '
        r'120 MiB on cpu; choose a smaller image_size or model, save memory with model\.backbone\.with_cp=True',
    ):
        find_batch_size(config(), 'auto', 120 * MIB)


@pytest.mark.parametrize(('images', 'expected'), [(3, 3), (4, 4), (1, 1), (10, 10)])
def test_a_small_set(trials, images, expected):
    trials.images = images
    assert find_batch_size(config(), 'auto', 10_000 * MIB).batch_size == expected


def test_without_a_base_the_batch_of_the_config(trials):
    assert find_batch_size(config(base=None), 'auto', 10_000 * MIB).batch_size == 8


def test_several_processes_and_batches_per_step(trials, monkeypatch):
    monkeypatch.setattr(module, 'get_world_size', lambda: 2)
    cfg = config()
    cfg.optim_wrapper.accumulative_counts = 2
    assert find_batch_size(cfg, 'auto', 10_000 * MIB).batch_size == 4


def test_a_number_that_fits(trials):
    found = find_batch_size(config(), 5, 10_000 * MIB)
    assert trials.tried == [5]
    assert (found.batch_size, found.per_image_bytes, found.fixed_bytes) == (5, 0, 0)


def test_a_number_that_does_not_fit(trials):
    with pytest.raises(UsageError, match=r'a batch of 16 images .* needs 900 MiB, .* 660 MiB .*set batch_size=11$'):
        find_batch_size(config(), 16, 660 * MIB)
    trials.changes.update({16: 'killed'})
    with pytest.raises(UsageError, match=r'was killed by the system, which ran out of memory, .*, or set batch_size='):
        find_batch_size(config(), 16, 660 * MIB)
    with pytest.raises(UsageError, match=r'a batch of 2 images .* needs 200 MiB, .* or --amp$'):
        find_batch_size(config(), 2, 120 * MIB)


def test_batch_normalisation_needs_two_images(trials):
    cfg = config()
    cfg.model.neck = dict(norm_cfg=dict(type='BN'))
    with pytest.raises(UsageError, match='batch_size must be at least 2, since the model normalises over batches'):
        find_batch_size(cfg, 1, 10_000 * MIB)
    with pytest.raises(UsageError, match=r'a batch of 2 images .* needs 200 MiB'):
        find_batch_size(cfg, 'auto', 160 * MIB)
    trials.images = 1
    with pytest.raises(UsageError, match=r'1 images, of which each process needs at least 2 \(the model normalises'):
        find_batch_size(cfg, 'auto', 10_000 * MIB)
    cfg.model.neck.norm_cfg.requires_grad = False
    assert find_batch_size(cfg, 1, 10_000 * MIB).batch_size == 1


def test_no_empty_epoch(trials):
    cfg = config()
    cfg.train_dataloader.drop_last = True
    with pytest.raises(
        UsageError, match=r'batch_size=101 is more than the 100 images .* set batch_size to at most 100'
    ):
        find_batch_size(cfg, 101, 10_000 * MIB)


@pytest.mark.parametrize('requested', [0, -1, True, 2.0, 'all'])
def test_impossible_numbers(trials, requested):
    with pytest.raises(UsageError, match=f"must be 'auto' or a whole number of at least 1, got {requested!r}"):
        find_batch_size(config(), requested)


def test_the_log(trials, monkeypatch):
    logged = []
    monkeypatch.setattr(module, 'print_log', lambda text, logger=None, level=logging.INFO: logged.append((level, text)))
    trials.assumed = ('Mosaic',)
    find_batch_size(config(), 8, 10_000 * MIB)
    assert logged[0][0] == logging.WARNING
    assert 'takes Mosaic to keep the sizes of images' in logged[0][1]
    assert logged[1][1].startswith('batch of 8: peak 500 MiB of 9.8 GiB')
    assert logged[1][1].endswith('; learning rate 0.001 × 8/16 = 0.0005 (linear rule)')  # noqa: RUF001
