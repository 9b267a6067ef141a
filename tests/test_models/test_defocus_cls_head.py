import pytest
import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from mmdefocus.models import DefocusClsHead
from mmdefocus.models.imagenet21k import imagenet1k_indices

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


def test_losses_over_classes_are_averaged_over_images_and_tokens():
    """Of binary cross-entropy, which has a loss for every class."""
    head = make_head(loss={**CROSS_ENTROPY, 'use_sigmoid': True}, aux_weight=0.3)
    tokens, samples = make_tokens(), make_samples('scores')
    target = torch.stack([sample.gt_score for sample in samples])
    losses = head.loss((tokens,), samples)
    main = F.binary_cross_entropy_with_logits(head.fc(tokens[:, -1]), target, reduction='sum') / 3
    aux = sum(
        F.binary_cross_entropy_with_logits(head.aux_fc(tokens[:, t]), target, reduction='sum') / 3 for t in range(6)
    )
    torch.testing.assert_close(losses['loss_cls'], 0.7 * main)
    torch.testing.assert_close(losses['loss_aux'], 0.3 * aux / 6)


def test_accuracy_comes_beside_the_losses_and_of_one_image_too():
    head = make_head(cal_acc=True)
    losses = head.loss((make_tokens(1),), make_samples('labels', 1))
    assert set(losses) == {'loss_cls', 'loss_aux', 'accuracy_top-1'}
    assert head.topk == (1,)


@pytest.mark.parametrize(('weight', 'zero'), [(0, 'loss_aux'), (1, 'loss_cls')])
def test_either_loss_can_have_all_of_the_weight(weight, zero):
    losses = make_head(aux_weight=weight).loss((make_tokens(),), make_samples('labels'))
    assert [name for name, loss in losses.items() if loss == 0] == [zero]


def test_a_single_class():
    assert make_head(num_classes=1).num_classes == 1
    assert make_head(predict_classes=[4]).predict_classes.tolist() == [4]
    assert 'predict_classes' not in make_head(predict_classes=[4]).state_dict()


def test_a_loss_that_is_built_already():
    loss = MODELS.build(CROSS_ENTROPY)
    assert make_head(loss=loss).loss_module is loss


def test_auto_is_for_the_tools():
    with pytest.raises(ValueError, match="num_classes='auto' is the number of classes of the training set"):
        make_head(num_classes='auto')


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


def test_samples_keep_what_they_have():
    head, samples = make_head(), make_samples('labels')
    samples[1].set_metainfo({'img_path': 'a.jpg'})
    predicted = head.predict((make_tokens(),), samples)
    assert all(after is before for after, before in zip(predicted, samples, strict=True))
    assert predicted[1].img_path == 'a.jpg'
    with pytest.raises(ValueError, match='zip'):
        head.predict((make_tokens(),), samples[:2])


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


def test_validation_of_a_model_with_batch_augmentations():
    """They leave scores of all classes in the samples, also in validation."""
    head = make_head(predict_classes=[3, 0])
    samples = make_samples('scores')
    predicted = head.predict((make_tokens(),), samples)
    assert [sample.pred_score.shape for sample in predicted] == [(2,)] * 3


def test_classes_of_imagenet1k_among_those_of_21k(monkeypatch):
    indices = list(range(5, 21_000, 21))[:1000]
    monkeypatch.setattr('mmdefocus.models.heads.defocus_cls_head.imagenet1k_indices', lambda: indices)
    head = make_head(num_classes=21_841, predict_classes='imagenet1k')
    assert head.predict_classes.tolist() == indices
    assert 'predict_classes' not in head.state_dict()


@pytest.mark.parametrize('hidden_dims', [None, 6])
def test_heads_of_imagenet1k_from_those_of_21k(hidden_dims):
    source = make_head(num_classes=21841, hidden_dims=hidden_dims)
    target = make_head(num_classes=1000, hidden_dims=hidden_dims, from_imagenet21k=True)
    indices = imagenet1k_indices()
    target.load_state_dict(source.state_dict())
    tokens = make_tokens()
    assert torch.equal(target(tokens), source(tokens)[:, indices])
    assert torch.equal(target.aux_fc(tokens[0]), source.aux_fc(tokens[0])[..., indices])
    again = make_head(num_classes=1000, hidden_dims=hidden_dims, from_imagenet21k=True)
    again.load_state_dict(target.state_dict())
    assert torch.equal(again(tokens), target(tokens))
    with pytest.raises(RuntimeError, match='size mismatch'):
        make_head(num_classes=1000, hidden_dims=hidden_dims).load_state_dict(source.state_dict())


def test_accuracy_in_training():
    head = make_head(cal_acc=True, topk=(1, 2))
    tokens, samples = make_tokens(), make_samples('labels')
    losses = head.loss((tokens,), samples)
    ranks = head((tokens,)).argsort(dim=1, descending=True)
    for k in (1, 2):
        hits = [sample.gt_label.item() in row[:k] for sample, row in zip(samples, ranks, strict=True)]
        assert losses[f'accuracy_top-{k}'].item() == pytest.approx(100 * sum(hits) / 3)
    with pytest.raises(ValueError, match='cal_acc=True needs labels, got scores of a batch augmentation'):
        head.loss((tokens,), make_samples('scores'))


def test_class_token_alone():
    head = make_head(aux=None)
    tokens, samples = make_tokens(), make_samples('labels')
    assert head.loss((tokens[:, -1],), samples) == head.loss((tokens,), samples)
    with pytest.raises(ValueError, match=r"aux='token' needs the image tokens, .*, got \(3, 8\); set out_type='raw'"):
        make_head().loss((tokens[:, -1],), samples)


@pytest.mark.parametrize('hidden_dims', [None, 6])
def test_features_before_the_last_layer(hidden_dims):
    head = make_head(hidden_dims=hidden_dims)
    tokens = make_tokens()
    features = head.pre_logits((tokens,))
    assert features.shape == (3, hidden_dims or CHANNELS)
    last = head.fc if hidden_dims is None else head.fc[2]
    assert torch.equal(last(features), head((tokens,)))
    assert torch.equal(head((tokens,)), head.fc(tokens[:, -1]))


def test_losses_are_float32_under_autocast():
    head = make_head(loss=SMOOTH)
    tokens, samples = make_tokens(), make_samples('scores')
    with torch.autocast('cpu', torch.bfloat16):
        assert head((tokens,)).dtype == torch.bfloat16
        mixed = head.loss((tokens,), samples)
    for name, loss in head.loss((tokens,), samples).items():
        assert mixed[name].dtype == torch.float32
        torch.testing.assert_close(mixed[name], loss, rtol=2**-8, atol=0)


def test_targets_are_not_copied_for_every_token():
    """The backward pass stores logits and probabilities of the tokens, but no target of that size."""
    classes, tokens = 1000, torch.randn(2, 101, CHANNELS)
    samples = [DataSample().set_gt_score(torch.full((classes,), 1 / classes)) for _ in range(2)]
    for loss in (CROSS_ENTROPY, {'type': 'mmpretrain.LabelSmoothLoss', 'label_smooth_val': 0.1}):
        head = make_head(num_classes=classes, loss=loss)
        kept = {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, kept=kept: kept.setdefault(tensor.untyped_storage().data_ptr(), tensor),
            lambda tensor: tensor,
        ):
            head.loss((tokens,), samples)
        large = [tensor for tensor in kept.values() if tensor.untyped_storage().nbytes() >= 2 * 100 * classes * 4]
        assert len(large) == 1, 'the logarithms of the probabilities'


@pytest.mark.parametrize('shape', [(3, 7, 9), (3, 9), (3, CHANNELS, 4, 4)])
def test_features_of_another_shape(shape):
    message = rf'for in_channels=8, got \({", ".join(map(str, shape))}\); in_channels must be the embed_dims of the'
    with pytest.raises(ValueError, match=message):
        make_head()((torch.randn(shape),))


@pytest.mark.parametrize('label', [-1, CLASSES, 20_000])
def test_label_out_of_range(label):
    samples = [DataSample().set_gt_label(number) for number in (0, label, 4)]
    message = rf'labels from 0 to 4 \(num_classes=5\), got {label}; .* set num_classes of the head to the number of'
    with pytest.raises(ValueError, match=message):
        make_head().loss((make_tokens(),), samples)


def test_scores_of_other_classes():
    samples = [DataSample().set_gt_score(torch.ones(4)) for _ in range(3)]
    with pytest.raises(ValueError, match=r'scores of num_classes=5 classes, got 4; give data_preprocessor.num_classes'):
        make_head().loss((make_tokens(),), samples)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'num_classes': 0}, 'num_classes must be positive, got 0'),
        ({'in_channels': -1}, 'in_channels must be positive, got -1'),
        ({'hidden_dims': 0}, 'hidden_dims must be positive, got 0'),
        ({'from_imagenet21k': True}, 'reduces heads of 21,841 classes to 1000, got num_classes='),
        ({'aux': 'mean'}, r"aux must be one of \['token', 'pool', None\], got 'mean'"),
        ({'aux_weight': 1.5}, 'aux_weight must be from 0 to 1, got 1.5'),
        ({'predict_classes': []}, r'distinct indices, at least one, got \[\]'),
        ({'predict_classes': [1, 2, 1]}, r'distinct indices, at least one, got \[1, 2, 1\]'),
        ({'predict_classes': [0, 5]}, 'from 0 to num_classes - 1 = 4, got indices from 0 to 5'),
        ({'predict_classes': [-1, 2]}, 'from 0 to num_classes - 1 = 4, got indices from -1 to 2'),
        ({'predict_classes': 'coco'}, "a list of indices, 'imagenet1k' or None, got 'coco'"),
    ],
)
def test_arguments_outside_their_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_head(**arguments)
