"""Contents of files that no training wrote: conversions and checks return a result or raise ValueError."""

import copy
from collections import OrderedDict

import torch
from checkpoint_files import GOLDEN
from fuzzing import FUZZ, watched
from hypothesis import example, given
from hypothesis import strategies as st

from mmdefocus.engine.checkpoint_check_hook import check_weights_are_there
from mmdefocus.engine.resume_check import missing_for_resuming
from mmdefocus.models.checkpoint import CheckpointError, read_checkpoint
from mmdefocus.models.checkpoint.conversion import HEADS, TARGETS, convert_official, convert_to_official
from mmdefocus.models.checkpoint.loaders import load_from_local

FILES = ('cls_norope_official_cls', 'det_raster_official_det')


def without_average(content):
    return {key: value for key, value in content.items() if key != 'model_ema'}


OFFICIAL = {kind: without_average(read_checkpoint(GOLDEN / f'{kind}.pth')) for kind in FILES}
OURS = {kind: convert_official(content) for kind, content in OFFICIAL.items()}
ENTRIES = ('model', 'state_dict', 'model_ema', 'meta', 'config', 'optimizer', 'message_hub', 'param_schedulers')
SETTINGS = ('DATA', 'IMG_SIZE', 'MODEL', 'MAMBA', 'rope_scale_factor', 'delta_scale_factor', 'epoch', 'iter')
WEIGHTS = [content.get('model') or content['state_dict'] for content in (*OFFICIAL.values(), *OURS.values())]
NAMES = sorted({name for weights in WEIGHTS for name in weights})
TENSORS = st.builds(
    lambda shape, dtype: torch.zeros(shape, dtype=dtype),
    st.lists(st.integers(0, 3), max_size=4),
    st.sampled_from((torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn)),
)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.binary(max_size=4) | TENSORS
KEYS = st.sampled_from((*ENTRIES, *SETTINGS)) | st.sampled_from(NAMES) | st.integers(0, 3)
CONTENTS = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=20
)


def use(content):
    """Do with a content what loaders, tools and hooks do."""
    with watched():
        missing_for_resuming(content)
        for call in (
            lambda: check_weights_are_there(content, 'the file'),
            *(lambda to=to, head=head: convert_official(content, to=to, head=head) for to in TARGETS for head in HEADS),
            lambda: convert_official(content, 'model_ema', strict=False),
            lambda: convert_to_official(content),
        ):
            try:
                call()
            except ValueError as error:
                assert str(error)  # noqa: PT017 (any message)


@given(CONTENTS)
@example({'state_dict': {0: 1}})
@example({'state_dict': {'backbone.layers.0.mixer.A_log': torch.ones(1), 0: 1}})
@example({'model': {'layers.0.mixer.A_log': torch.ones(1), 0: 1}})
@FUZZ
def test_any_content(content):
    use(content)


CHANGES = st.tuples(st.sampled_from(('entry', 'tensor', 'rename', 'delete')), st.integers(0, 2**16), KEYS, CONTENTS)


@given(st.sampled_from(sorted(OFFICIAL)), st.booleans(), st.lists(CHANGES, min_size=1, max_size=4))
@example('cls_norope_official_cls', True, [('entry', 0, 'model_ema', {0: None})])
@example('det_raster_official_det', True, [('entry', 0, 'meta', None)])
@FUZZ
def test_changed_content(kind, official, changes):
    content = copy.copy((OFFICIAL if official else OURS)[kind])
    entry = 'model' if 'model' in content else 'state_dict'
    weights = OrderedDict(content[entry])
    for how, number, key, value in changes:
        name = list(weights)[number % len(weights)]
        if how == 'entry':
            content[key] = value
        elif how == 'tensor':
            weights[name] = value
        elif how == 'rename':
            weights[key] = weights.pop(name)
        else:
            del weights[name]
    use({entry: weights} | content if number % 2 else content | {entry: weights})


@given(CONTENTS)
@example({'weight': torch.ones(2).to(torch.float8_e4m3fn)})
@example({'state_dict': {0: torch.ones(1)}})
@FUZZ
def test_saved_content(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / 'content.pth'
    torch.save(content, path)
    with watched():
        try:
            load_from_local(str(path))
        except CheckpointError as error:
            message = str(error)
        else:
            return
    assert 'content.pth' in message
