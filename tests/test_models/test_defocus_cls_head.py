import pytest
import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from mmdefocus.models import DefocusClsHead

CLASSES, CHANNELS = 5, 8
CROSS_ENTROPY = {'type': 'mmpretrain.CrossEntropyLoss'}
SMOOTH = {'type': 'mmpretrain.LabelSmoothLoss', 'label_smooth_val': 0.1, 'num_classes': CLASSES}


def make_head(**changes):
    torch.manual_seed(0)
    return DefocusClsHead(**{'num_classes': CLASSES, 'in_channels': CHANNELS} | changes)


def make_tokens(images=3, tokens=7):
    return torch.randn(images, tokens, CHANNELS, generator=torch.Generator().manual_seed(1))


def make_samples(kind, images=3):
    labels = [(2 * i) % CLASSES for i in range(images)]
    if kind == 'labels':
        return [DataSample().set_gt_label(label) for label in labels]
    return [DataSample().set_gt_score(0.7 * F.one_hot(torch.tensor(label), CLASSES) + 0.06) for label in labels]


def cross_entropy(logits, samples, smoothing):
    """Straight from the definition, image by image; logits (B, K)."""
    losses = []
    for row, sample in zip(logits, samples, strict=True):
        target = sample.gt_score if 'gt_score' in sample else F.one_hot(sample.gt_label[0], CLASSES)
        target = (1 - smoothing) * target + smoothing / CLASSES
        losses.append(-(target * row.log_softmax(0)).sum())
    return sum(losses) / len(losses)


@pytest.mark.parametrize('hidden_dims', [None, 6])
@pytest.mark.parametrize(('loss', 'smoothing'), [(CROSS_ENTROPY, 0.0), (SMOOTH, 0.1)])
@pytest.mark.parametrize('kind', ['labels', 'scores'])
@pytest.mark.parametrize('aux', ['token', 'pool', None])
def test_losses(aux, kind, loss, smoothing, hidden_dims):
    head = make_head(aux=aux, loss=loss, hidden_dims=hidden_dims, aux_weight=0.3)
    tokens, samples = make_tokens(), make_samples(kind)
    losses = head.loss((tokens,), samples)
    main = cross_entropy(head.fc(tokens[:, -1]), samples, smoothing)
    if aux is None:
        assert set(losses) == {'loss_cls'}
        torch.testing.assert_close(losses['loss_cls'], main)
        return
    if aux == 'token':
        per_token = [cross_entropy(head.aux_fc(tokens[:, t]), samples, smoothing) for t in range(tokens.shape[1] - 1)]
        expected = sum(per_token) / len(per_token)
    else:
        expected = cross_entropy(head.aux_fc(tokens[:, :-1].mean(1)), samples, smoothing)
    assert set(losses) == {'loss_cls', 'loss_aux'}
    torch.testing.assert_close(losses['loss_cls'], 0.7 * main)
    torch.testing.assert_close(losses['loss_aux'], 0.3 * expected)


@pytest.mark.parametrize('hidden_dims', [None, 6])
def test_keys_and_initial_values(hidden_dims):
    head = make_head(hidden_dims=hidden_dims, in_channels=200, num_classes=100)
    head.init_weights()
    parts = [''] if hidden_dims is None else ['0.', '2.']
    names = {f'{fc}.{part}{leaf}' for fc in ('fc', 'aux_fc') for part in parts for leaf in ('weight', 'bias')}
    assert set(head.state_dict()) == names
    for name, parameter in head.named_parameters():
        if name.endswith('bias'):
            assert not parameter.any(), name
        else:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.1), name


def test_classifier_minimises_the_sum_of_both_losses(toy_arch):
    model = MODELS.build(
        {
            'type': 'ImageClassifier',
            '_scope_': 'mmpretrain',
            'backbone': {'type': 'DefocusMamba', 'arch': toy_arch, 'out_type': 'raw'},
            'head': {'type': 'DefocusClsHead', 'num_classes': CLASSES, 'in_channels': 16},
        }
    )
    losses = model(torch.randn(2, 3, 32, 32), make_samples('labels', 2), mode='loss')
    total, logged = model.parse_losses(losses)
    torch.testing.assert_close(total, losses['loss_cls'] + losses['loss_aux'])
    assert set(logged) == {'loss', 'loss_cls', 'loss_aux'}
    total.backward()
    assert all(parameter.grad.any() for parameter in model.parameters())


def test_prediction():
    head = make_head()
    tokens, samples = make_tokens(), make_samples('labels')
    logits = head((tokens,))
    torch.testing.assert_close(logits, head.fc(tokens[:, -1]))
    for made in (head.predict((tokens,)), head.predict((tokens,), samples)):
        assert len(made) == len(tokens)
        for sample, row in zip(made, logits, strict=True):
            torch.testing.assert_close(sample.pred_score, row.softmax(0))
            assert sample.pred_label.tolist() == [row.argmax().item()]
    assert [sample.gt_label.item() for sample in samples] == [0, 2, 4]


def test_prediction_of_some_classes():
    chosen = [3, 0, 2]
    head, whole = make_head(predict_classes=chosen), make_head()
    head.load_state_dict(whole.state_dict())
    tokens = make_tokens()
    logits = whole((tokens,))[:, chosen]
    for sample, row in zip(head.predict((tokens,)), logits, strict=True):
        torch.testing.assert_close(sample.pred_score, row.softmax(0))
        assert sample.pred_label.item() == row.argmax()
    samples = make_samples('labels')
    assert head.loss((tokens,), samples) == whole.loss((tokens,), samples)
