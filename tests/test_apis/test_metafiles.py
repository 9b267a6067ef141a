"""Compare the metafiles with the configs, the networks and the tables of the READMEs."""

import re
from pathlib import Path

import pytest
import yaml
from mmengine.config import Config
from setuptools import Distribution

from mmdefocus.apis.complexity import count_complexity

ROOT = Path(__file__).parents[2]
RELEASE = 'https://github.com/OpenGVLab/De-focus-Attention-Networks/releases/download/v1.0/'
PUBLISHED_FILES = [
    'defocus_mamba_base_cls.pth',
    'defocus_mamba_base_det_12ep.pth',
    'defocus_mamba_base_det_36ep.pth',
    'defocus_mamba_large_cls_1k.pth',
    'defocus_mamba_large_cls_21k.pth',
]
# Configs for your own data and toys have no published counterpart.
OTHER_CONFIGS = (
    'nano_digits', 'nano_folder', '_nano', 'base_finetune', 'large_finetune', 'base_linear_probe', '_photos',
)  # fmt: skip


def read_models():
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    return [
        dict(model, folder=Path(path).parent)
        for path in index['Import']
        for model in yaml.safe_load((ROOT / path).read_text())['Models']
    ]


MODELS = {model['Name']: model for model in read_models()}
COUNTS = {}


def count(cfg):
    """Count the complexity of a network; configs that differ only in their training share one result."""
    key = str(cfg.model)
    if key not in COUNTS:
        COUNTS[key] = count_complexity(cfg)
    return COUNTS[key]


def test_every_published_config_is_named_once():
    configs = [f'configs/{path.parent.name}/{path.name}' for path in ROOT.glob('configs/[!_]*/*.py')]
    expected = [path for path in configs if not path.removesuffix('.py').endswith(OTHER_CONFIGS)]
    assert sorted(model['Config'] for model in MODELS.values()) == sorted(expected)
    others = [path.removesuffix('.py') for path in set(configs) - set(expected)]
    assert all(any(path.endswith(name) for path in others) for name in OTHER_CONFIGS), 'they exist'


@pytest.mark.parametrize('name', MODELS)
def test_parameters_and_flops_are_counted(name):
    model = MODELS[name]
    found = count(Config.fromfile(ROOT / model['Config']))
    metadata = model['Metadata']
    assert found.shape == tuple(metadata['Image Size'])
    assert found.parameters == metadata['Parameters']
    assert found.multiply_adds == metadata['FLOPs']


@pytest.mark.parametrize('name', MODELS)
def test_recipe_is_that_of_the_config(name):
    model = MODELS[name]
    cfg = Config.fromfile(ROOT / model['Config'])
    assert model['Metadata'].get('Epochs') == (cfg.train_cfg or {}).get('max_epochs')


@pytest.mark.parametrize('name', MODELS)
def test_weights_are_the_published_files(name):
    weights = MODELS[name].get('Weights')
    assert MODELS[name].get('Converted From', {}).get('Weights') == weights
    if weights is not None:
        assert weights.removeprefix(RELEASE) in PUBLISHED_FILES


def test_every_published_file_is_named():
    weights = {model['Weights'] for model in MODELS.values() if 'Weights' in model}
    assert weights == {RELEASE + file for file in PUBLISHED_FILES}


@pytest.mark.parametrize('name', MODELS)
def test_results_are_those_of_the_table(name):
    model = MODELS[name]
    readme = (ROOT / model['folder'] / 'README.md').read_text()
    file = Path(model['Config']).name
    (row,) = re.findall(rf'^\|.*\({re.escape(file)}\).*\|$', readme, flags=re.MULTILINE)
    cells = [cell.strip() for cell in row.split('|')]
    metrics = [metric for result in model.get('Results', []) for metric in result['Metrics'].values()]
    shown = [cell for cell in cells if re.fullmatch(r'\d\d\.\d', cell)]
    assert [float(cell) for cell in shown] == metrics
    assert f'{model["Metadata"]["Parameters"] / 1e6:.1f}M' in cells
    assert f'{model["Metadata"]["FLOPs"] / 1e9:.1f}G' in cells


def test_collections_are_there():
    for path in yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']:
        content = yaml.safe_load((ROOT / path).read_text())
        assert all((ROOT / collection['README']).is_file() for collection in content['Collections'])
        names = [collection['Name'] for collection in content['Collections']]
        assert len(set(names)) == len(names)
        assert {model['In Collection'] for model in content['Models']} == set(names)


def test_wheels_carry_the_index_and_the_configs(monkeypatch):
    monkeypatch.chdir(ROOT)
    distribution = Distribution()
    distribution.parse_config_files()
    command = distribution.get_command_obj('build_py')
    command.ensure_finalized()
    command.manifest_files = {}  # of an earlier build
    files = command.find_data_files('mmdefocus', 'mmdefocus')
    bases = [str(path.relative_to(ROOT)) for path in ROOT.glob('configs/_base_/*/*.py')]
    for path in ['model-index.yml', *bases, *(model['Config'] for model in MODELS.values())]:
        assert f'mmdefocus/.mim/{path}' in files
