"""Order of writing and removing, with any storage backend."""

from pathlib import Path
from typing import ClassVar

import pytest
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.fileio import BaseStorageBackend, FileClient, LocalBackend, register_backend
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

from mmdefocus.engine import DefocusCheckpointHook

RUN = 'training'


class Toy(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, inputs, mode='tensor', **_):
        output = self.layer(inputs)
        return dict(loss=output.sum()) if mode == 'loss' else output


class Scores(BaseMetric):
    """Metrics that improve at every epoch, or at the first one only."""

    calls = 0

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        Scores.calls += 1
        return {'up/acc': Scores.calls, 'first/acc': -Scores.calls}


@register_backend('toy_store', prefixes='toy')
class Store(BaseStorageBackend):
    """A storage that is no local directory."""

    steps: ClassVar[list[str]] = []
    files: ClassVar[dict[str, bytes]] = {}

    def get(self, filepath):
        return self.files[filepath]

    def get_text(self, filepath, encoding='utf-8'):
        return self.files[filepath].decode()

    def put(self, obj, filepath):
        self.steps.append(f'put {Path(filepath).name}')
        self.files[filepath] = obj

    def remove(self, filepath):
        self.steps.append(f'remove {Path(filepath).name}')
        del self.files[filepath]

    def isfile(self, filepath):
        return filepath in self.files

    def join_path(self, first, *others):
        return '/'.join([first, *others])


FileClient.register_backend('toy_store', Store, prefixes='toy')  # CheckpointHook looks in this older registry too


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Train a network of two parameters for three epochs of one iteration, and return the names of the files."""
    monkeypatch.setattr(Scores, 'calls', 0)
    monkeypatch.setattr(Store, 'steps', [])
    monkeypatch.setattr(Store, 'files', {})

    def train(**options) -> list[str]:
        loader = dict(batch_size=1, sampler=dict(type='DefaultSampler', shuffle=False), dataset=[torch.ones(1)])
        loader['collate_fn'] = dict(type='pseudo_collate')
        Runner(
            model=Toy(),
            work_dir=str(tmp_path / RUN),
            train_dataloader=loader,
            val_dataloader=loader,
            train_cfg=dict(by_epoch=True, max_epochs=3),
            val_cfg={},
            val_evaluator=Evaluator(Scores()),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
            default_hooks=dict(checkpoint=dict(type=DefocusCheckpointHook, interval=1, **options)),
            default_scope='mmengine',
            experiment_name=f'{tmp_path.name}_{len(list(tmp_path.iterdir()))}',
        ).train()
        return sorted(path.name for path in (tmp_path / RUN).glob('*.pth*'))

    return train


def with_hashes(*names: str) -> list[str]:
    return sorted([*names, *(f'{name}.sha256' for name in names)])


def test_several_best_checkpoints(train):
    names = train(max_keep_ckpts=1, save_best=['up/acc', 'first/acc'])
    assert names == with_hashes('epoch_3.pth', 'best_up_acc_epoch_3.pth', 'best_first_acc_epoch_1.pth')


def test_a_smaller_number_of_checkpoints_than_epochs(train):
    assert train(max_keep_ckpts=2) == with_hashes('epoch_2.pth', 'epoch_3.pth')


def test_all_checkpoints_are_kept_by_default(train):
    assert train() == with_hashes('epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth')


def test_published_weights(train, tmp_path):
    names = train(max_keep_ckpts=1, published_keys=['meta', 'state_dict'])
    (published,) = {name for name in names if name.startswith('epoch_3-') and name.endswith('.pth')}
    content = torch.load(tmp_path / RUN / published, weights_only=False)
    assert content.keys() == {'meta', 'state_dict'}


@pytest.mark.parametrize(
    'options', [dict(file_client_args=dict(backend='disk')), dict(backend_args=dict(backend='local'))]
)
def test_other_names_of_the_local_backend(train, options):
    assert train(max_keep_ckpts=1, **options) == with_hashes('epoch_3.pth')


def test_a_storage_of_another_kind_gets_the_new_file_first(train, tmp_path):
    names = train(max_keep_ckpts=1, save_best='up/acc', out_dir='toy://store', backend_args=dict(backend='toy_store'))
    assert names == []
    epoch = ['put epoch_{1}.pth', 'remove epoch_{0}.pth', 'put best_up_acc_epoch_{1}.pth', 'put epoch_{1}.pth']
    epoch.append('remove best_up_acc_epoch_{0}.pth')
    expected = [step.format(number - 1, number) for number in (1, 2, 3) for step in epoch]
    assert Store.steps == [step for step in expected if 'epoch_0' not in step]
    assert (tmp_path / RUN / 'last_checkpoint').read_text() == f'toy://store/{RUN}/epoch_3.pth'


def test_a_subclass_of_the_local_backend_is_kept(train):
    class Own(LocalBackend):
        pass

    register_backend('own_local', Own, force=True)
    assert train(max_keep_ckpts=1, backend_args=dict(backend='own_local')) == ['epoch_3.pth']


def test_an_error_that_is_none_of_the_disk(train, monkeypatch):
    monkeypatch.setattr('mmengine.runner.runner.save_checkpoint', lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train()
