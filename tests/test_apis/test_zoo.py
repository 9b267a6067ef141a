"""The zoo: its numbers are those of the networks and of the metafiles."""

import pytest
from mmengine.config import Config

from mmdefocus.apis.complexity import count_complexity
from mmdefocus.apis.errors import UsageError
from mmdefocus.apis.model_index import find_model
from mmdefocus.apis.zoo import CONFIGS, find_zoo_model, list_zoo, zoo_columns, zoo_names

COUNTED = [model for model in list_zoo() if model.name.endswith(('_nano', '_small')) or 'finetune' in model.config]
LISTED = [model for model in list_zoo() if model not in COUNTED]


@pytest.mark.parametrize('model', COUNTED, ids=lambda model: f'{model.task}-{model.name}')
def test_counts_of(model):
    cfg = Config.fromfile(model.config_file)
    if model.task == 'classification':
        cfg.model.head.num_classes = 1000
    found = count_complexity(cfg, model.image_size)
    assert (found.parameters, found.multiply_adds) == (model.parameters, model.multiply_adds)


def test_other_counts_are_those_of_the_metafiles():
    import yaml

    index = yaml.safe_load((CONFIGS.parent / 'model-index.yml').read_text())
    entries = {
        entry['Config']: entry['Metadata']
        for path in index['Import']
        for entry in yaml.safe_load((CONFIGS.parent / path).read_text())['Models']
    }
    for model in LISTED:
        known = entries[f'configs/{model.config}']
        assert (known['Parameters'], known['FLOPs']) == (model.parameters, model.multiply_adds), model.name
        assert tuple(known['Image Size']) == model.image_size


def test_published_weights_have_an_address():
    published = [model for model in list_zoo() if model.published]
    assert published
    assert all(find_model(model.published)[1].startswith('https://') for model in published)


@pytest.mark.parametrize('name', ['nano', 'defocus_mamba_nano', 'Defocus-Mamba-Nano'])
def test_names(name):
    assert find_zoo_model(name, 'detection').name == 'defocus_mamba_nano'
    assert 'nano' in zoo_names()


def test_unknown_names_have_suggestions_and_a_grouped_list():
    with pytest.raises(UsageError, match=r'did you mean defocus_vit_nano.*defocus_mamba_\{nano,small,base,large\}'):
        find_zoo_model('defocus_vit_nanno', 'detection')
    with pytest.raises(UsageError, match='the zoo has fcvit_tiny for classification only'):
        find_zoo_model('fcvit_tiny', 'detection')


def test_memory_that_was_not_measured_is_said_so():
    assert zoo_columns(find_zoo_model('large', 'detection'))['Memory, training'] == 'not measured'


def test_the_table_of_the_document():
    page = (CONFIGS.parents[2] / 'docs' / 'facade.md').read_text()
    for model in list_zoo():
        assert f'| {" | ".join(zoo_columns(model).values())} |' in page, model.name
