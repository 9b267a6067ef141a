"""Checkpoint files that cannot be tested, resumed, loaded or converted."""

import io
import json
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from broken_inputs import Case, Workplace, each

INTRODUCTION = 'Checkpoint files given to `tools/test.py`, to `tools/train.py` and to the converters.'
HTML = b'<!DOCTYPE html><html><body>404: Not Found</body></html>'
LFS = b'version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12345\n'


class Harmful:
    def __reduce__(self) -> tuple:
        return print, ('run by a checkpoint',)


def saved(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def zipped(**files: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w') as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def archived() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode='w') as archive:
        archive.addfile(tarfile.TarInfo('weights'))
    return file.getvalue()


def safetensors() -> bytes:
    header = json.dumps({'w': dict(dtype='F32', shape=[1], data_offsets=[0, 4])}).encode()
    return struct.pack('<Q', len(header)) + header + bytes(4)


def arrays() -> bytes:
    file = io.BytesIO()
    np.savez(file, weight=np.zeros(3))
    return file.getvalue()


def file(what: str, content: bytes, says: str) -> Case:
    """A case in which the file to test has this content."""

    def attempt(place: Workplace) -> str:
        (place.root / 'weights.pth').write_bytes(content)
        return place.test()

    return Case(what, attempt, says)


def of_valid(what: str, change: Callable[[bytes], bytes], says: str) -> Case:
    """A case in which bytes of the valid file are changed."""

    def attempt(place: Workplace) -> str:
        path = place.root / 'weights.pth'
        path.write_bytes(change(path.read_bytes()))
        return place.test()

    return Case(what, attempt, says)


def change(place: Workplace, change: Callable[[dict], object], name: str = 'weights.pth') -> None:
    content = torch.load(place.root / name, weights_only=True)
    change(content)
    torch.save(content, place.root / name)


def tensors(what: str, function: Callable[[dict], object], says: str, use: Callable = Workplace.test) -> Case:
    """A case in which the content of the valid file is changed."""

    def attempt(place: Workplace) -> str:
        change(place, function)
        return use(place)

    return Case(what, attempt, says)


def flipped(data: bytes) -> bytes:
    middle = data.index(b'backbone') + len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]


def training_state(content: dict) -> None:
    """Make the weights a checkpoint of a training, of one that had another optimiser."""
    content['meta'].update(epoch=1, iter=1)
    groups = [dict(params=[0, 1], lr=0.1, initial_lr=0.1)]
    content.update(optimizer=dict(state={}, param_groups=groups), message_hub={}, param_schedulers=[])


def without(*keys: str) -> Callable[[dict], None]:
    def change(content: dict) -> None:
        training_state(content)
        for key in keys:
            del content[key]

    return change


def resume(place: Workplace) -> str:
    return place.train('classifier.py', '--resume', 'weights.pth')


def resume_newest(place: Workplace) -> str:
    (place.root / 'runs').mkdir()
    (place.root / 'runs' / 'epoch_1.pth').write_bytes(b'')
    return place.train('classifier.py', '--resume')


def load(place: Workplace, name: str = 'weights.pth', config: str = 'classifier.py') -> str:
    return place.train(config, '--cfg-options', f'load_from={name}')


def initial(place: Workplace) -> str:
    return place.train(
        'classifier.py',
        '--cfg-options',
        'model.backbone.init_cfg.type=Pretrained',
        "model.backbone.init_cfg.checkpoint='detector.pth'",
    )


def to_official(place: Workplace, name: str = 'detector.pth') -> str:
    return place.run('model_converters/mmdefocus_to_official.py', name, 'official.pth')


def to_ours(place: Workplace, name: str = 'weights.pth', *words: str) -> str:
    return place.run('model_converters/official_to_mmdefocus.py', name, 'ours.pth', *words)


def official(place: Workplace, *words: str) -> str:
    from mmdefocus.models.checkpoint.conversion import convert_to_official

    content = convert_to_official(torch.load(place.root / 'weights.pth', weights_only=True))
    content['model'].popitem()
    torch.save(content, place.root / 'official.pth')
    return place.run('model_converters/official_to_mmdefocus.py', 'official.pth', 'ours.pth', *words)


CASES = [
    file('The file is empty', b'', 'is empty | a file written by torch.save | download it or copy it again'),
    of_valid(
        'The file is cut off',
        lambda data: data[: len(data) // 2],
        'File is not a zip file | expected the whole file | download or copy it again',
    ),
    of_valid(
        'A byte of the file is changed',
        flipped,
        'weights/data/13 | does not match its checksum | download or copy it again',
    ),
    of_valid(
        'The first bytes are missing',
        lambda data: data[100:],
        'begins with | expected a file written by torch.save | name a checkpoint of PyTorch, or download it again',
    ),
    file(
        'The file is an HTML page',
        HTML,
        "begins with b'<!DOCTYPE html><' | expected a file written by torch.save | name a checkpoint of PyTorch, or",
    ),
    file(
        'The file is a Git LFS pointer',
        LFS,
        'is a Git LFS pointer | expected the checkpoint itself | run "git lfs pull"',
    ),
    file(
        'The file is a text',
        b'epoch 12\n',
        "begins with b'epoch 12\\n' | expected a file written by torch.save | name a checkpoint of PyTorch, or",
    ),
    file(
        'The file is JSON',
        b'{"state_dict": {}}',
        'begins with b\'{"state_dict": {\' | expected a file written by | name a checkpoint of PyTorch, or',
    ),
    file(
        'The file is a pickle',
        pickle.dumps(dict(state_dict={})),
        'begins with | expected a file written by torch.save | name a checkpoint of PyTorch, or download it again',
    ),
    file(
        'The file is another zip archive',
        zipped(**{'readme.txt': b'hello'}),
        'is another zip archive | expected an archive written by torch.save | name the checkpoint file (weights of',
    ),
    file(
        'The file is a tar archive',
        archived(),
        'begins with | expected a file written by torch.save | name a checkpoint of PyTorch, or download it again',
    ),
    file(
        'The file is compressed with gzip',
        b'\x1f\x8b\x08\x00' + bytes(100),
        'begins with | expected a file written by torch.save | it is compressed: unpack it',
    ),
    file(
        'The file is in safetensors format',
        safetensors(),
        'begins with | expected a file written by torch.save | it is in safetensors format: load it with',
    ),
    file(
        'The file is in ONNX format',
        b'\x08\x08\x12\x07pytorch\x1a\x05' + bytes(100),
        'begins with | expected a file written by torch.save | name a checkpoint of PyTorch, or download it again',
    ),
    file(
        'The file is in HDF5 format (Keras)',
        b'\x89HDF\r\n\x1a\n' + bytes(100),
        'begins with | expected a file written by torch.save | it is in HDF5 format: convert the weights of other',
    ),
    file(
        'The file is in Keras format',
        zipped(**{'config.json': b'{}', 'model.weights.h5': b''}),
        'is another zip archive | expected an archive written by torch.save | name the checkpoint file (weights of',
    ),
    file(
        'The file has arrays of NumPy',
        arrays(),
        'is another zip archive | expected an archive written by torch.save | name the checkpoint file (weights of',
    ),
    file(
        'The file would run code',
        saved(dict(state_dict={}, meta=Harmful())),
        'it calls builtins.print | A checkpoint may contain only data | If you trust the file, see',
    ),
    file(
        'The file is a whole module',
        saved(torch.nn.Linear(2, 2)),
        '31 missing | does not fit the model | Use the config that the checkpoint was trained with',
    ),
    file(
        'The file is a list',
        saved([1, 2]),
        'holds a list | expected a dict with a state_dict | name a checkpoint, or save model.state_dict()',
    ),
    file(
        'The file is a tensor',
        saved(torch.zeros(3)),
        'holds a Tensor | expected a dict with a state_dict | name a checkpoint, or save model.state_dict()',
    ),
    file(
        'The state dict is a list',
        saved(dict(state_dict=[1, 2])),
        'state_dict of type list | expected a dict of tensors | save model.state_dict()',
    ),
    file(
        'The state dict is empty',
        saved(dict(state_dict={})),
        '31 missing | does not fit the model | Use the config that the checkpoint was trained with',
    ),
    file(
        'The state dict has numbers',
        saved(dict(state_dict=dict(weight=1.0))),
        '31 missing | does not fit the model | Use the config that the checkpoint was trained with',
    ),
    tensors(
        'The weights have NaN',
        lambda c: c['state_dict']['head.fc.bias'].fill_(float('nan')),
        'state_dict.head.fc.bias has NaN or infinite elements | expected finite ones | use an earlier checkpoint',
    ),
    tensors(
        'A tensor is missing',
        lambda c: c['state_dict'].pop('head.fc.bias'),
        '1 missing | does not fit the model | Use the config that the checkpoint was trained with',
    ),
    tensors(
        'There is an additional tensor',
        lambda c: c['state_dict'].update(more=torch.zeros(1)),
        '1 unexpected | does not fit the model | Use the config that the checkpoint was trained with',
    ),
    tensors(
        'A tensor has another shape',
        lambda c: c['state_dict'].update({'head.fc.bias': torch.zeros(7)}),
        '1 of | does not fit the model | Use the config that the checkpoint was trained with',
    ),
    tensors(
        'All names have a prefix',
        lambda c: c.update(state_dict={f'net.{k}': v for k, v in c['state_dict'].items()}),
        '31 missing | does not fit the model | Use the config that the checkpoint was trained with',
    ),
    tensors(
        'The classes have other names',
        lambda c: c['meta']['dataset_meta'].update(classes=('cow', 'dog')),
        'the data set has 2 classes (cat | the checkpoint has 2 classes (cow | give the data set the classes of the',
    ),
    tensors(
        'The classes are in another order',
        lambda c: c['meta']['dataset_meta'].update(classes=('dog', 'cat')),
        'the data set has 2 classes (cat | the checkpoint has 2 classes (dog | give the data set the classes of the',
    ),
    Case(
        'The checkpoint is of a detector, the config of a classifier',
        lambda place: place.test('classifier.py', 'detector.pth'),
        '31 missing | does not fit the model | Use the config that the checkpoint was trained with',
    ),
    Case(
        'The checkpoint is of a classifier, the config of a detector',
        lambda place: place.test('detector.py', 'weights.pth'),
        '120 missing | does not fit the model | Use the config that the checkpoint was trained with',
    ),
    Case(
        'The address of the checkpoint does not exist',
        lambda place: place.test('classifier.py', 'http://127.0.0.1:9/weights.pth'),
        'URLError: <urlopen error [Errno 111] | could not be downloaded | give the path of the file instead of the',
    ),
    Case(
        'load_from: the weights are of another network',
        lambda place: load(place, 'detector.pth'),
        'detector.pth | fits the model of the config | Start from a checkpoint of the same kind of network',
    ),
    Case(
        'init_cfg: the weights are of another network',
        initial,
        '27 missing | is not a checkpoint of this DefocusMamba | Name a checkpoint of this network',
    ),
    tensors(
        '--resume: there is no state of the optimiser',
        without('optimizer'),
        'has no optimizer | cannot be resumed | to start a new training from its weights',
        use=resume,
    ),
    tensors(
        '--resume: there is no epoch',
        without('meta'),
        'has no meta | cannot be resumed | to start a new training from its weights',
        use=resume,
    ),
    tensors(
        '--resume: the optimiser is another',
        training_state,
        'in the checkpoint | in the config | Restore the settings to resume it',
        use=resume,
    ),
    tensors(
        '--resume: the weights are another',
        lambda c: (training_state(c), c['state_dict'].popitem()),
        'in the checkpoint | in the config | Restore the settings to resume it',
        use=resume,
    ),
    Case(
        '--resume: the newest checkpoint is empty',
        resume_newest,
        'is empty | a file written by torch.save | download it or copy it again',
    ),
    Case(
        'Conversion: not a file of this package',
        to_official,
        'got one with the keys | expected a checkpoint of mmdefocus that has | name a checkpoint that mmdefocus has',
    ),
    Case(
        'Conversion: the file does not exist',
        lambda place: to_official(place, 'nowhere.pth'),
        'nowhere.pth | expected the path or the URL of a checkpoint | correct it',
    ),
    Case(
        'Conversion: not an official file',
        to_ours,
        'got one with the keys backbone.cls_token | expected an official file of De-focus | name an official file',
    ),
    Case(
        'Conversion: the average is missing',
        lambda place: official(place, '--weights', 'ema'),
        "there is no 'model_ema' | which only files of a classification | convert the plain weights ('model')",
    ),
    Case(
        'Conversion: a tensor is missing',
        official,
        'head.aux_fc.bias (2,) | 1 keys of the model are missing or of a different shape | --no-strict writes',
    ),
    Case(
        'Conversion: the classes are not those of ImageNet-21k',
        lambda place: official(place, '--head', '21k-to-1k'),
        'got head.fc.weight with 2 rows | expects heads of 21841 classes | keep or drop',
    ),
]


@each(CASES)
def test_broken_checkpoints(case, check):
    check(case)
