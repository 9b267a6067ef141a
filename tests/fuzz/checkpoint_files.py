"""Checkpoint files to change, and the parts of which forged ones are made."""

import io
import pickletools
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from fuzzing import CODE
from hypothesis import strategies as st
from mmengine.logging import HistoryBuffer

GOLDEN = Path(__file__).parents[1] / 'golden'


def saved(is_zip: bool) -> bytes:
    """A file with everything that checkpoints of a training have."""
    content = {
        'state_dict': OrderedDict(weight=torch.arange(6.0).reshape(2, 3), half=torch.ones(2, dtype=torch.bfloat16)),
        'meta': {'classes': ('cat', 'dog'), 'part': slice(1, 3), 'epoch': 3, 'iter': 7},
        'message_hub': {'log_scalars': {'loss': HistoryBuffer([1.5], [1])}, 'best': np.float64(0.25)},
        'optimizer': {'state': {0: {'step': torch.tensor(3.0)}}, 'param_groups': [{'params': [0], 'lr': 0.1}]},
        'arrays': [np.array(['a', 'bc']), np.arange(6, dtype='>i4').reshape(2, 3)],
    }
    content['state_dict']._metadata = OrderedDict(layer={'version': 2})
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=is_zip)
    return file.getvalue()


FILES = {name: (GOLDEN / name).read_bytes() for name in ('cls_norope_official_cls.pth', 'det_raster_official_det.pth')}
FILES |= {'training': saved(is_zip=True), 'training_legacy': saved(is_zip=False)}
ZIPS = [name for name in FILES if not name.endswith('legacy')]


def pickle_of(content: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return next(archive.read(name) for name in archive.namelist() if name.endswith('/data.pkl'))


def with_pickle(content: bytes, pickled: bytes) -> bytes:
    """Replace the pickle in an archive; its checksum is right."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(file, 'w') as changed:
        for name in archive.namelist():
            changed.writestr(name, pickled if name.endswith('/data.pkl') else archive.read(name))
    return file.getvalue()


def instructions(pickled: bytes) -> list[bytes]:
    """Split a pickle into its instructions."""
    starts = [position for *_, position in pickletools.genops(pickled)]
    return [pickled[start:end] for start, end in zip(starts, [*starts[1:], len(pickled)], strict=True)]


# Module and name: those that readers know, those that run code, and malformed ones.
GLOBALS = """
collections:OrderedDict torch._utils:_rebuild_tensor_v2 torch._utils:_rebuild_parameter
torch._utils:_rebuild_sparse_tensor torch._utils:_rebuild_qtensor torch._utils:_rebuild_meta_tensor_no_storage
torch._utils:_rebuild_device_tensor_from_numpy torch._utils:_rebuild_nested_tensor
torch._utils:_rebuild_wrapper_subclass torch._tensor:_rebuild_from_type_v2 torch:FloatStorage torch:HalfStorage
torch:QInt8Storage torch:ComplexFloatStorage torch.storage:UntypedStorage torch:Size torch:device
torch:float8_e4m3fn torch:float32 torch:sparse_coo torch:Tensor torch._C:_TensorBase
torch.nn.parameter:Parameter torch.serialization:_get_layout numpy:dtype numpy:ndarray
numpy._core.multiarray:_reconstruct numpy.core.multiarray:scalar mmengine.logging.history_buffer:HistoryBuffer
__builtin__:bytes __builtin__:getattr __builtin__:slice __builtin__:set builtins:complex builtins:bytearray
_codecs:encode collections:Counter collections:defaultdict yacs.config:CfgNode argparse:Namespace os:system
posix:system builtins:eval builtins:exec builtins:__import__ subprocess:Popen torch:load operator:attrgetter
pathlib:PosixPath datetime:datetime a.b:c.d
: a.b:c.d
"""
TEXTS = (
    CODE,
    '',
    '<f8',
    'O',
    'V99999999',
    'S2147483647',
    'storage',
    '0',
    'cpu',
    'cuda:0',
    'meta',
    'mean',
    '_metadata',
    'é',
)
FORGED = (
    *(bytes([code]) for code in b'.0123NQRabdeltsuo()[]{}\x81\x85\x86\x87\x88\x89'),
    *(b'K' + bytes([value]) for value in (0, 1, 255)),
    *(b'h' + bytes([value]) for value in range(5)),
    *(b'q' + bytes([value]) for value in range(5)),
    b'J\xff\xff\xff\x7f',
    b'J\xff\xff\xff\xff',
    b'\x8a\x08' + (2**62).to_bytes(8, 'little'),
    b'\x8a\x06' + (2**40).to_bytes(6, 'little'),
    b'\x8b' + (2**30).to_bytes(4, 'little'),
    b'G\x7f\xf8\0\0\0\0\0\0',
    b'G?\xf0\0\0\0\0\0\0',
    b'C\x08abcdefgh',
    b'j\xff\xff\xff\x7f',
    b'X\xff\xff\xff\x7f',
    b'\x80\x05',
    b'\x95\xff\xff\xff\xff\xff\xff\xff\x7f',
    *(b'X' + len(text.encode()).to_bytes(4, 'little') + text.encode() for text in TEXTS),
    *(b'c' + entry.replace(':', '\n').encode() + b'\n' for entry in GLOBALS.split()),
)


def changed_instructions() -> st.SearchStrategy[list[tuple[str, int, bytes]]]:
    kinds = st.sampled_from(('replace', 'insert', 'delete', 'swap'))
    changes = st.tuples(kinds, st.integers(0, 2**16), st.sampled_from(FORGED))
    return st.lists(changes, min_size=1, max_size=6)


def change_instructions(listed: list[bytes], changes: list[tuple[str, int, bytes]]) -> bytes:
    listed = list(listed)
    for kind, place, data in changes:
        at = place % len(listed)
        if kind == 'insert':
            listed.insert(at, data)
        elif kind == 'swap':
            other = data[0] % len(listed)
            listed[at], listed[other] = listed[other], listed[at]
        else:
            listed[at] = data if kind == 'replace' else b''
    return b''.join(listed)
