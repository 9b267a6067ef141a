"""Files that can and cannot be read, and that no code from a file runs."""

import argparse
import io
import os
import pathlib
import pickle
import struct
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader

from mmdefocus.models.checkpoint import CheckpointError, read_checkpoint

GOLDEN = Path(__file__).parents[1] / 'golden'
FORMATS = pytest.mark.parametrize('is_zip', [True, False], ids=['zip', 'legacy'])


class Call:
    """Pickled as a call of a function."""

    def __init__(self, function, *arguments, state=None):
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.parts


@pytest.fixture
def save(tmp_path):
    def write(content, is_zip=True):
        path = tmp_path / 'file.pth'
        torch.save(content, path, _use_new_zipfile_serialization=is_zip)
        return path

    return write


@pytest.fixture
def trap(tmp_path):
    return tmp_path / 'it_ran'


@pytest.mark.parametrize('case', ['cls_rope', 'cls_norope', 'cls_22kto1k_scaled'])
def test_official_file_is_read_without_yacs(case):
    content = read_checkpoint(GOLDEN / f'{case}_official_cls.pth')
    assert 'yacs' not in sys.modules
    assert content['epoch'] == 3
    assert content['config']['DATA']['IMG_SIZE'] == (128 if 'scaled' in case else 64)
    assert content['config']['MODEL']['MAMBA']['group_norm_size'] == 64
    assert type(content['config']) is type(content['config']['DATA']) is OrderedDict
    assert vars(content['config']) == {}
    for name, tensor in content['model'].items():
        assert torch.equal(content['model_ema'][name], tensor / 2), name


@FORMATS
def test_a_training_checkpoint_is_read_unchanged(save, is_zip):
    log = HistoryBuffer([1.5, 2.5], [1, 2], max_length=7)
    content = {
        'state_dict': OrderedDict(weight=torch.arange(6.0).reshape(2, 3), half=torch.ones(2, dtype=torch.bfloat16)),
        'meta': {'classes': ('cat', 'dog'), 'sizes': torch.Size([1, 2]), 'part': slice(1, 3), 'epoch': 3},
        'message_hub': {'log_scalars': {'loss': log}, 'best': np.float64(0.25), 'empty': HistoryBuffer()},
        'optimizer': {'state': {0: {'step': torch.tensor(3.0)}}, 'param_groups': [{'betas': (0.9, 0.999)}]},
        'arrays': [
            np.array(['a', 'bc']),
            np.asfortranarray(np.arange(6, dtype='>i4').reshape(2, 3)),
            np.arange(6.0).reshape(2, 3),
            np.array(True),
        ],
        'scalars': [np.float32(0.5), np.int64(7), np.bool_(True)],
    }
    content['state_dict']._metadata = OrderedDict(layer={'version': 2})
    path = save(content, is_zip)
    read, unsafe = read_checkpoint(path), torch.load(path, weights_only=False)
    assert read['meta'] == unsafe['meta'] == content['meta']
    assert read['optimizer'] == content['optimizer']
    assert torch.equal(read['state_dict']['weight'], content['state_dict']['weight'])
    assert read['state_dict']['half'].dtype == torch.bfloat16
    assert read['state_dict']._metadata == content['state_dict']._metadata
    for array, expected in zip(read['arrays'], unsafe['arrays'], strict=True):
        np.testing.assert_array_equal(array, expected, strict=True)
        assert type(array) is np.ndarray
        assert array.flags.f_contiguous == expected.flags.f_contiguous
        assert array.flags.writeable
    for scalar, expected in zip(read['scalars'], content['scalars'], strict=True):
        assert scalar == expected
        assert type(scalar) is type(expected)
    hub = read['message_hub']
    assert hub['best'] == 0.25
    assert type(hub['best']) is np.float64
    assert (hub['log_scalars']['loss'].mean(), hub['log_scalars']['loss'].max_length) == (log.mean(), 7)
    assert len(hub['empty'].data[0]) == 0
    hub['log_scalars']['loss'].update(4.0)
    assert hub['log_scalars']['loss'].statistics('current') == 4.0


def test_shared_and_circular_containers_are_preserved(save):
    shared, circle = [np.arange(2)], {}
    circle['self'] = [circle, shared, (shared,)]
    read = read_checkpoint(save(circle))
    assert read['self'][0] is read
    assert read['self'][1] is read['self'][2][0]
    assert type(read['self'][1][0]) is np.ndarray


@FORMATS
@pytest.mark.parametrize('place', ['top', 'in the weights', 'in the meta data', 'as a key'])
def test_code_is_rejected_and_not_run(save, trap, is_zip, place):
    evil = Call(os.system, f'touch {trap}')
    weight = torch.ones(2)
    content = {
        'top': evil,
        'in the weights': {'state_dict': OrderedDict(weight=weight, evil=evil)},
        'in the meta data': {'state_dict': {'weight': weight}, 'meta': {'hooks': [(1, {'a': [evil]})]}},
        'as a key': {'state_dict': {evil: weight}},
    }[place]
    with pytest.raises(
        CheckpointError, match=r'file\.pth was not loaded: it refers to posix\.system\. .* no code .* was run'
    ):
        read_checkpoint(save(content, is_zip))
    assert not trap.exists()


@FORMATS
@pytest.mark.parametrize(
    ('evil', 'name'),
    [
        (Call(eval, '1 + 1'), 'eval'),
        (Call(exec, 'a = 1'), 'exec'),
        (Call(__import__, 'yacs'), '__import__'),
        (Call(getattr, OrderedDict, 'fromkeys'), 'getattr'),
        (Call(pathlib.Path, 'a'), r'pathlib\.P\w+'),
        (Call(io.open, 'a'), 'open'),
        (Call(np.array, [1]), r'numpy\.array'),
    ],
    ids=lambda value: value if isinstance(value, str) else '',
)
def test_calls_are_rejected_by_name(save, is_zip, evil, name):
    with pytest.raises(CheckpointError, match=rf'was not loaded: it (refers to|calls) (builtins\.)?(_?io\.)?{name}\. '):
        read_checkpoint(save({'state_dict': [evil]}, is_zip))


def test_unknown_classes_become_dictionaries(save, monkeypatch, trap):
    class Config(dict):
        """Has side effects when it is created, filled or read."""

        def __new__(cls, *args):
            trap.touch()
            return super().__new__(cls, *args)

        def __setstate__(self, state):
            trap.touch()

        __setitem__ = __getattr__ = __setstate__

    monkeypatch.setattr(sys.modules[__name__], 'Config', Config, raising=False)
    Config.__qualname__ = 'Config'
    config = dict.__new__(Config)
    dict.update(config, lr=0.1, inner={'a': 1})
    path = save({'config': config, 'args': argparse.Namespace(items='hides a method')})
    read = read_checkpoint(path)
    assert not trap.exists()
    assert type(read['config']) is OrderedDict
    assert read['config'] == {'lr': 0.1, 'inner': {'a': 1}}
    assert list(read['args'].items()) == []


def test_a_history_registers_no_functions(save):
    before = dict(HistoryBuffer._statistics_methods)
    log = HistoryBuffer([1.0], [1])
    log._statistics_methods = {'mean': print, 'evil': print}
    read = read_checkpoint(save({'log': log}))
    assert HistoryBuffer._statistics_methods == before
    assert read['log'].statistics('mean') == 1.0


def test_numpy_objects_and_forged_dtypes(save):
    with pytest.raises(CheckpointError, match=r'not loaded: it has a NumPy array of object, which is neither'):
        read_checkpoint(save({'a': np.array([{}, None])}))
    # Flags that declare the numbers to be pointers.
    forged = Call(np.dtype, 'f8', False, True, state=(3, '<', None, None, None, -1, -1, 63))
    array = Call(np.zeros(0).__reduce__()[0], np.ndarray, (0,), b'b', state=(1, (1,), forged, False, bytes(8)))
    read = read_checkpoint(save({'a': array}))['a']
    assert (read.dtype, read.dtype.flags) == (np.dtype('f8'), np.dtype('f8').flags)


def test_trusted_classes_can_be_allowed(save):
    path = save({'folder': pathlib.PurePosixPath('a/b')})
    with pytest.raises(CheckpointError, match=r'see torch\.serialization\.add_safe_globals'):
        read_checkpoint(path)
    before = set(torch.serialization.get_safe_globals())
    with torch.serialization.safe_globals([pathlib.PurePosixPath]):
        assert read_checkpoint(path) == {'folder': pathlib.PurePosixPath('a/b')}
    assert set(torch.serialization.get_safe_globals()) == before


@FORMATS
@pytest.mark.parametrize('share', [0.3, 0.9, 0.999])
def test_truncated_file(save, is_zip, share):
    path = save({'state_dict': {'weight': torch.randn(1000)}}, is_zip)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(CheckpointError, match=r'file\.pth is (truncated or )?damaged .*download or copy it again'):
        read_checkpoint(path)


@pytest.mark.parametrize('entry', ['data.pkl', 'data/0'])
def test_flipped_bytes(save, entry):
    path = save({'state_dict': {'weight': torch.full((1000,), 1.5)}})
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo(f'file/{entry}').header_offset
    content = bytearray(path.read_bytes())
    position = content.index(b'weight' if entry == 'data.pkl' else torch.tensor(1.5).numpy().tobytes(), start)
    content[position] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        CheckpointError, match=rf'file\.pth is damaged: the content of file/{entry} does not match its checksum'
    ):
        read_checkpoint(path)


@pytest.mark.parametrize('changed', ['size', 'time'])
def test_a_file_that_changes_after_it_was_read_is_checked_again(save, changed):
    path = save({'weight': torch.full((1000,), 1.5)})
    read_checkpoint(path)
    first = path.stat()
    if changed == 'size':
        path = save({'weight': torch.full((1100,), 1.5)})
    content = bytearray(path.read_bytes())
    content[content.index(torch.tensor(1.5).numpy().tobytes())] ^= 1
    path.write_bytes(content)
    time = first.st_mtime_ns + (0 if changed == 'size' else 10**9)
    os.utime(path, ns=(time, time))
    assert (path.stat().st_size == first.st_size) == (changed == 'time')
    with pytest.raises(CheckpointError, match=r'is damaged: the content of .* does not match its checksum'):
        read_checkpoint(path)


def test_files_without_checksums(save):
    torch.serialization.set_crc32_options(False)
    try:
        path = save({'weight': torch.ones(1)})
    finally:
        torch.serialization.set_crc32_options(True)
    assert read_checkpoint(path)['weight'] == 1


def rewrite(path, change, compression=zipfile.ZIP_STORED):
    """Change the pickle in an archive."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, 'w', compression) as archive:
        for name, data in content.items():
            archive.writestr(name, change(data) if name.endswith('/data.pkl') else data)


def compress(path):
    """Compress 64 MiB of spaces at the end of the pickle."""
    rewrite(path, lambda data: data + b' ' * 2**26, zipfile.ZIP_DEFLATED)


def declare(path):
    """Declare in the directory of the archive that the first entry has 2 GiB."""
    content = bytearray(path.read_bytes())
    entry = content.index(b'PK\x01\x02')
    struct.pack_into('<II', content, entry + 20, 2**31, 2**31)
    path.write_bytes(content)


@pytest.mark.parametrize('swell', [compress, declare])
def test_archive_that_unpacks_to_more_than_itself(save, swell):
    path = save({'weight': torch.ones(3)})
    swell(path)
    assert path.stat().st_size < 2**20
    with pytest.raises(CheckpointError, match=r'has [\d,]+ bytes but would unpack to [\d,]{10,}'):
        read_checkpoint(path)


@FORMATS
def test_tensor_that_claims_to_be_larger_than_the_file(save, is_zip):
    """2⁴⁰ elements: by strides of 0, and by the number in the pickle."""
    with pytest.raises(CheckpointError, match=r'tensor of shape \(1099511627776,\) is larger than the whole file'):
        read_checkpoint(save({'weight': torch.zeros(1).expand(2**40)}, is_zip))
    path = save({'weight': torch.zeros(12345)}, is_zip)
    number, forged = b'M' + struct.pack('<H', 12345), b'\x8a\x06' + (2**40).to_bytes(6, 'little')
    if is_zip:
        rewrite(path, lambda data: data.replace(number, forged))
    else:
        path.write_bytes(path.read_bytes().replace(number, forged))
    assert forged in path.read_bytes()
    with pytest.raises(CheckpointError, match='is damaged or not a checkpoint'):
        read_checkpoint(path)


def test_nesting_without_end(save):
    path = save([])
    rewrite(path, lambda data: b'\x80\x02' + b']' * 100_000 + b'a' * 99_999 + b'.')
    with pytest.raises(CheckpointError, match=r'is damaged or not a checkpoint \(RecursionError'):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'just some text', r"expected a file written by torch\.save, but .*begins with b'just some text'"),
        (b'<!DOCTYPE html><html>404</html>', 'download it again'),
        (b'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n', 'is a Git LFS pointer.*git lfs pull'),
        (b'', 'is empty'),
        (b'storages'.ljust(512, b'\0'), r'expected a file written by torch\.save'),  # its oldest format, a tar archive
        (pickle.dumps({'state_dict': {}}), r'expected a file written by torch\.save'),
        (b'PK\x03\x04', 'is truncated or damaged'),
    ],
)
def test_other_files(tmp_path, content, message):
    path = tmp_path / 'file.pth'
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(path)


def test_other_archives(tmp_path):
    path = tmp_path / 'file.zip'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('readme.txt', 'text')
    with pytest.raises(CheckpointError, match='is another zip archive'):
        read_checkpoint(path)


def test_directories_and_missing_files(tmp_path):
    with pytest.raises(CheckpointError, match='is a directory; name the checkpoint file in it'):
        read_checkpoint(tmp_path)
    with pytest.raises(FileNotFoundError, match=r'none\.pth does not exist'):
        read_checkpoint(tmp_path / 'none.pth')


def test_old_torch_is_an_error(save, monkeypatch):
    path = save({})
    monkeypatch.delattr(torch.serialization, 'get_unsafe_globals_in_checkpoint')
    with pytest.raises(RuntimeError, match=r'needs PyTorch 2\.6 or newer .* upgrade PyTorch'):
        read_checkpoint(path)


def test_mmengine_reads_files_through_it(save, trap, monkeypatch):
    path = save({'meta': [Call(os.system, f'touch {trap}')]})
    with pytest.raises(CheckpointError, match=r'not loaded: it refers to posix\.system'):
        CheckpointLoader.load_checkpoint(str(path))
    assert not trap.exists()
    monkeypatch.setenv('HOME', str(path.parent))
    save({'state_dict': {'weight': torch.ones(1)}})
    assert CheckpointLoader.load_checkpoint('~/file.pth', map_location='meta')['state_dict']['weight'].is_meta


def test_files_written_on_a_gpu_are_loaded_without_one(save):
    path = save({'weight': torch.arange(3.0)})
    rewrite(path, lambda data: data.replace(b'X\x03\0\0\0cpu', b'X\x06\0\0\0cuda:7'))
    with pytest.raises(CheckpointError, match='CUDA'):
        read_checkpoint(path, map_location=None)
    weight = CheckpointLoader.load_checkpoint(str(path))['weight']
    assert weight.device.type == 'cpu'
    assert weight.tolist() == [0, 1, 2]


def test_a_zip_directory_that_is_damaged(save):
    path = save({'weight': torch.ones(3)})
    content = bytearray(path.read_bytes())
    content[content.index(b'PK\x01\x02') + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(
        CheckpointError, match=r'file\.pth is truncated or damaged \(File .* is encrypted.*copy it again'
    ):
        read_checkpoint(path)


@pytest.mark.parametrize('dtype', [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_numbers_of_8_bits(save, dtype):
    weight = torch.tensor([1.0, -2.0]).to(dtype)
    assert torch.equal(read_checkpoint(save({'weight': weight}))['weight'].float(), weight.float())
    with pytest.raises(CheckpointError, match='weight has NaN or infinite elements'):
        read_checkpoint(save({'weight': torch.tensor([1.0, float('nan')]).to(dtype)}))
