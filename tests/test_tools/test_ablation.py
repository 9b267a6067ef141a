"""The study tools as a user runs them, with one step per training, and the functions behind them."""

import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import TOOLS
from mmengine.config import Config
from PIL import Image
from studies.ablation import Variant, run_ablation
from studies.ablation_table import BEGIN_MARK, END_MARK, format_ablation, write_table
from studies.over_focus_networks import change_pairs, network_variants
from studies.over_focus_scores import COLUMNS
from studies.over_focus_table import format_effects

from mmdefocus.apis.errors import UsageError
from mmdefocus.apis.runs.config_file import load_config
from mmdefocus.engine.cpu_bfloat16 import cpu_has_bfloat16

CLASSIFIER = Path(__file__).parent / 'toy_classifier.py'
# One step of eight images, 40 images to test on.
BUDGET = {
    'train_cfg.max_epochs': 1,
    'train_dataloader.dataset.indices': 8,
    'val_dataloader.dataset.indices': 4,
    'test_dataloader.dataset.indices': 40,
}
TINY = ['--seeds', '4', '--work-dir', 'work', '--out', 'table.md']
TINY += ['--cfg-options', *(f'{key}={value}' for key, value in BUDGET.items())]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a tool with some arguments in an empty directory; returns the names that it defines."""
    monkeypatch.chdir(tmp_path)

    def main(tool: str, *arguments: str) -> dict:
        monkeypatch.setattr(sys, 'argv', [tool, *arguments])
        return runpy.run_path(str(TOOLS / tool), run_name='__main__')

    return main


def test_ablation_writes_a_table_and_goes_on_where_it_was(run, capsys):
    run('ablate_digits.py', *TINY, '--variants', 'full')
    assert re.search(r'\[1/1\] full, seed 4: \d+\.\d+\n', capsys.readouterr().out)
    full, off = Path('work/full/seed_4'), Path('work/auxiliary-loss-off/seed_4')
    assert not off.exists()
    kept = (full / 'result.json').stat().st_mtime_ns

    names = run('ablate_digits.py', *TINY, '--variants', 'full', 'auxiliary loss off')
    assert (full / 'result.json').stat().st_mtime_ns == kept
    rows = [line.split(' | ') for line in Path('table.md').read_text().splitlines() if line.startswith('| ')]
    assert [row[0] for row in rows] == ['| variant', '| full', '| auxiliary loss off']
    assert rows[2][1] == '`model.head.aux=None`'
    for row, folder in ((rows[1], full), (rows[2], off)):
        accuracy = json.loads((folder / 'result.json').read_text())['metrics']['accuracy/top1']
        assert [float(cell.strip(' |')) for cell in row[2:]] == pytest.approx([accuracy, accuracy], abs=0.005)
        assert accuracy * 40 / 100 == pytest.approx(round(accuracy * 40 / 100)), 'a share of 40 images'
    assert 'loss_aux' in (full / 'log.txt').read_text()
    assert 'loss_aux' not in (off / 'log.txt').read_text()

    with pytest.raises(RuntimeError, match="the runs report no 'coco/bbox_mAP' but accuracy/top1; ask for one"):
        run_ablation(names['VARIANTS'][:1], [4], 'coco/bbox_mAP', 'work', cfg_options=names['SCHEDULE'] | BUDGET)


def test_mixers_are_compared_in_a_table_and_a_picture(run):
    networks = ['DAT++', 'De-focus RetNet', 'ViT, band-pass off', 'FCViT']
    run('compare_mixers.py', *TINY, '--tasks', 'classification', '--variants', *networks, '--plot', 'points.png')
    rows = [line.split(' | ') for line in Path('table.md').read_text().splitlines()[3:-1]]
    assert [row[0] for row in rows] == ['| ViT, band-pass off', '| De-focus RetNet', '| FCViT', '| DAT++']
    assert [row[1] for row in rows] == [
        '`model.backbone.band_pass=False`, `model.backbone.absolute_positions=True`',
        '',
        '',
        '',
    ]
    for row, folder in zip(rows, ('ViT-band-pass-off', 'De-focus-RetNet', 'FCViT', 'DAT'), strict=True):
        metrics = json.loads(Path('work', 'classification', folder, 'seed_4', 'result.json').read_text())['metrics']
        accuracy = metrics['accuracy/top1']
        assert [float(cell.strip(' |')) for cell in row[2:]] == pytest.approx([accuracy, accuracy], abs=0.005)
    with Image.open('points.png') as picture:
        assert picture.format == 'PNG'
        assert len(picture.convert('RGB').getcolors(1 << 16)) > 2, 'something is drawn'


def test_precisions_are_compared_in_a_table(run, capsys):
    if not cpu_has_bfloat16():
        with pytest.raises(SystemExit):
            run('compare_precision.py', *TINY)
        assert 'run the study on another machine' in capsys.readouterr().err
        return
    run('compare_precision.py', *TINY, '--tasks', 'classification')
    lines = [line.split(' | ') for line in Path('table.md').read_text().splitlines()[3:-1]]
    assert [line[:2] for line in lines] == [
        ['| float32', ''],
        ['| bfloat16', '`optim_wrapper.type=DefocusAmpOptimWrapper`'],
    ]
    for name, precision in (('float32', 'float32'), ('bfloat16', 'bfloat16 (mixed precision)')):
        log = Path('work/classification', name, 'seed_4/log.txt').read_text()
        assert f'Precision: {precision}' in log


def test_over_focus_is_compared_in_tables_and_on_a_page(run):
    networks = ['De-focus Mamba', 'Mamba, without band-pass']
    run('compare_over_focus.py', *TINY, '--images', '3', '--variants', *networks)
    lines = Path('table.md').read_text().splitlines()
    scores, effects, faithfulness = (
        [[cell.strip() for cell in line.split('|')[1:-1]] for line in table.splitlines()[2:]]
        for table in '\n'.join(lines[1:-1]).split('\n\n')
    )
    assert [row[0] for row in scores] == ['*over-focused:*', *networks]
    assert [row[0] for row in effects] == ['band-pass in Mamba']
    assert [row[0] for row in faithfulness] == networks
    numbers = json.loads(Path('work', 'scores.json').read_text())
    for row, network in zip(scores[1:], networks, strict=True):
        (seed,) = numbers[network]
        metrics = json.loads(
            Path('work', network.replace(', ', '-').replace(' ', '-'), 'seed_4/result.json').read_text()
        )
        assert float(row[1]) == pytest.approx(metrics['metrics']['accuracy/top1'], abs=0.005)
        assert [float(cell) for cell in row[2:]] == pytest.approx(
            [seed[name] for name in ('entropy', 'top_mass', 'gini', 'sink_strength', 'query_irrelevance')]
            + [seed[name] for name in ('gradient_evenness', 'receptive_field')],
            abs=0.0005,
        )
    first, second = (numbers[network][0]['entropy'] for network in networks)
    change, verdict = effects[0][1].split(', ')
    assert float(change) == pytest.approx(first - second, abs=0.0005)
    assert verdict == ('less over-focus' if first > second else 'more over-focus')
    page = Path('work/report/index.html').read_text()
    assert all(network in page for network in networks)
    assert len(list(Path('work/images').iterdir())) == 3


def test_a_difference_counts_if_all_seeds_agree():
    before = dict.fromkeys(COLUMNS, 0.5)
    after = [before | dict(entropy=0.6, gini=0.6, top_mass=0.6), before | dict(entropy=0.7, gini=0.7, top_mass=0.4)]
    table = format_effects({'with': after, 'without': [before, before]}, {'change': ('with', 'without')})
    row = [cell.strip() for cell in table.splitlines()[2].split('|')[1:-1]]
    assert row[:4] == [
        'change',
        '+0.150 ± 0.071, less over-focus',  # entropy, low in an over-focused network
        '+0.000 ± 0.141, unclear',
        '+0.150 ± 0.071, more over-focus',
    ]
    pairs = change_pairs(['De-focus Mamba', 'Mamba, without band-pass', 'De-focus ViT'])
    assert pairs == {'band-pass in Mamba': ('De-focus Mamba', 'Mamba, without band-pass')}
    assert {name for pair in change_pairs([v.name for v in network_variants()]).values() for name in pair} == {
        variant.name for variant in network_variants()
    }


@pytest.mark.parametrize('task', ['classification', 'detection'])
def test_mixers_are_trained_alike_with_and_without_band_pass(task):
    names = runpy.run_path(str(TOOLS / 'compare_mixers.py'))
    task = names['TASKS'][task]
    switches, trainings = {}, {}
    for family, settings in names['NETWORKS'].values():
        config = TOOLS.parent / 'configs' / task.folder / f'{family}_nano_digits.py'
        cfg = load_config(config, task.schedule | task.by_family[family] | settings, 'work')
        found = tuple(cfg.model.backbone.pop(key, None) for key in ('rotary', 'band_pass', 'absolute_positions'))
        switches.setdefault(family, []).append(found)
        trainings.setdefault(family, []).append(cfg.to_dict())
    plain, alone = (None, False, True), [(None, None, None)]
    assert switches == {
        'defocus_mamba': [(None, None, None), (False, None, None)],
        'defocus_vit': [(None, None, None), plain],
        'defocus_retnet': [(None, None, None), plain],
        'fcvit': alone,
        'dat': alone,
    }
    assert all(training == family[0] for family in trainings.values() for training in family)


def test_mistakes_are_named_before_any_training(tmp_path):
    toy = Variant('toy', CLASSIFIER)
    for message, arguments in (
        (r"needs variants that differ, at least one, got \['toy', 'toy'\]", ([toy, toy], [0])),
        (r'needs variants that differ, at least one, got \[\]', ([], [0])),
        (r'needs seeds that differ, at least one, got \[1, 1\]', ([toy], [1, 1])),
        ("the config has no 'modle'; did you mean model", ([toy, Variant('b', CLASSIFIER, {'modle.x': 1})], [0])),
    ):
        with pytest.raises(UsageError, match=message):
            run_ablation(*arguments, 'accuracy/top1', tmp_path / 'work')
    with pytest.raises(UsageError, match='jobs must be at least 1, got 0'):
        run_ablation([toy], [0], 'accuracy/top1', tmp_path / 'work', jobs=0)
    assert not (tmp_path / 'work').exists()


def test_failed_run_points_to_its_log(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('PYTHONHOME', '/nowhere')  # with which no interpreter starts
    with pytest.raises(RuntimeError, match=r'ended with status 1 and without a result; see work/toy/seed_0/log'):
        run_ablation([Variant('toy', CLASSIFIER)], [0], 'accuracy/top1', 'work')
    assert '/nowhere' in (tmp_path / 'work' / 'toy' / 'seed_0' / 'log.txt').read_text()


def test_runs_of_changed_configs_are_repeated(tmp_path, monkeypatch):
    """A stub of the training reports the learning rate as the accuracy."""
    trained = []

    def train(command, **_):
        config = Path(command[-1])
        text = config.read_text()
        metrics = {'accuracy/top1': Config.fromstring(text, '.py').optim_wrapper.optimizer.lr}
        (config.parent / 'result.json').write_text(json.dumps(dict(config=text, metrics=metrics)))
        trained.append(metrics['accuracy/top1'])
        return 0

    monkeypatch.setattr(subprocess, 'call', train)
    config = tmp_path / 'config.py'

    def run_with(lr, **options):
        config.write_text(f"_base_ = '{CLASSIFIER}'\noptim_wrapper = dict(optimizer=dict(lr={lr}))\n")
        results = run_ablation([Variant('toy', config)], [0], 'accuracy/top1', tmp_path / 'work', cfg_options=options)
        return results['toy']

    assert run_with(0.5) == run_with(0.5) == [0.5]
    assert trained == [0.5]
    assert run_with(0.25) == [0.25]
    assert run_with(0.25, **{'optim_wrapper.optimizer.lr': 0.125}) == [0.125]
    assert trained == [0.5, 0.25, 0.125]


def test_table_of_several_seeds():
    variants = [Variant('full', 'a.py'), Variant('less', 'a.py', {'model.x': 1, 'model.y': 'z'})]
    accuracy = {'full': [97.0, 98.0, 98.5], 'less': [0.8, 0.816, 0.8]}
    assert format_ablation(variants, {'accuracy/top1': accuracy}) == (
        '| variant | settings | accuracy/top1, by seed | mean ± std |\n'
        '|---|---|---|--:|\n'
        '| full |  | 97.00, 98.00, 98.50 | 97.83 ± 0.76 |\n'
        '| less | `model.x=1`, `model.y=z` | 0.80, 0.82, 0.80 | 0.81 ± 0.01 |\n'
    )
    assert format_ablation(variants[:1], {'accuracy/top1': accuracy, 'coco/bbox_mAP': {'full': [0.5, 0.5124]}}) == (
        '| variant | settings | accuracy/top1, by seed | mean ± std | coco/bbox_mAP, by seed | mean ± std |\n'
        '|---|---|---|--:|---|--:|\n'
        '| full |  | 97.00, 98.00, 98.50 | 97.83 ± 0.76 | 0.500, 0.512 | 0.506 ± 0.009 |\n'
    )


def test_table_goes_between_the_marks_of_a_document(tmp_path):
    document = tmp_path / 'document.md'
    write_table('| a |\n', document)
    document.write_text('before\n' + document.read_text() + 'after\n')
    write_table('| b |\n| c |\n', document)
    text = document.read_text()
    assert text == 'before\n<!-- begin of the table -->\n| b |\n| c |\n<!-- end of the table -->\nafter\n'
    document.write_text('no place\n')
    with pytest.raises(UsageError, match=r"document\.md' exists and has no lines '<!-- begin of the table -->' and"):
        write_table('| d |\n', document)
    assert document.read_text() == 'no place\n'


@pytest.mark.parametrize('name', ['ablation.md', 'mixers.md', 'mixed-precision.md'])
def test_documentation_has_a_place_for_the_table(name, tmp_path):
    document = Path(shutil.copy(TOOLS.parent / 'docs' / name, tmp_path))
    before, after = document.read_text().split(BEGIN_MARK)[0], document.read_text().split(END_MARK)[1]
    write_table('| new |\n', document)
    assert document.read_text() == before + BEGIN_MARK + '| new |\n' + END_MARK + after
