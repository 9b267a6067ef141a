"""Tests of inspections: every mistake is found, and a set without mistakes has no finding."""

import json
from pathlib import Path
from typing import Any

import pytest
from mistakes import MISTAKES, much_more, nothing, sixteen_bits, unused
from small_sets import WIDTH, inspect, kinds, make_classification, make_images, make_source
from source_sets import make_yolo

from mmdefocus.datasets import DefocusCocoDataset
from mmdefocus.datasets.errors import DataError
from mmdefocus.datasets.inspection import inspect_data, repair_data, write_source
from mmdefocus.datasets.inspection.kinds import KINDS
from mmdefocus.datasets.inspection.repairs import REPAIRS
from mmdefocus.datasets.prepared import read_data
from mmdefocus.datasets.prepared.source_data import ReadingProblem, SourceData, SourceSplit


def test_set_without_mistakes_has_no_finding(tmp_path: Path) -> None:
    make_images(tmp_path)
    calls: list[tuple[int, int]] = []
    report = inspect(make_source(tmp_path), progress=lambda *call: calls.append(call))
    assert report.findings == ()
    assert report.splits == {split: dict(images=6, objects=36) for split in ('train', 'val')}
    assert report.classes == {name: dict(train=18, val=18) for name in ('cat', 'dog')}
    assert calls == [(done, 24) for done in range(1, 25)]
    assert '0 errors, 0 warnings, 0 notes' in report.to_text()


@pytest.mark.parametrize('kind', MISTAKES)
def test_mistake_is_found_and_repaired(kind: str, tmp_path: Path) -> None:
    split, change, repairs = MISTAKES[kind]
    make_images(tmp_path)
    source = make_source(tmp_path, **{split: change})
    report = inspect(source)
    assert kinds(report) == [kind]
    finding = report.findings[0]
    assert finding.count >= 1
    assert finding.examples
    assert KINDS[kind].title in report.to_text()
    assert finding.repair == (repairs[0] if repairs else None)
    if repairs:
        repaired, sentences = repair_data(source, report, repairs)
        assert len(sentences) == 1
        assert sentences[0].startswith(f'{repairs[0]}: ')
        files = write_source(repaired, tmp_path / 'out')
        read = read_data(tmp_path / 'out')
        # Files of dropped images stay where they are, and turned images are still turned.
        assert set(kinds(inspect(read))) <= {'unlisted', 'rotated'}
        DefocusCocoDataset(
            ann_file=str(files[0]),
            metainfo=dict(classes=('cat', 'dog')),
            pipeline=[dict(type='LoadImageFromFile'), dict(type='mmdet.LoadAnnotations', with_bbox=True)],
            data_prefix=dict(img=''),
        )


def test_every_kind_has_a_test() -> None:
    others = {'no_boxes', 'imbalance', 'category_names', 'unused_category', 'unreadable_label', 'label_without_image'}
    others |= {'similar_names'}
    assert set(MISTAKES) | others == set(KINDS)
    assert {kind.repair for kind in KINDS.values()} - {None} == set(REPAIRS)


def test_kinds_that_do_not_come_alone(tmp_path: Path) -> None:
    make_images(tmp_path)
    assert {'no_boxes', 'class_in_one_split'} == set(kinds(inspect(make_source(tmp_path, train=nothing))))
    assert {'imbalance', 'few_examples'} <= set(kinds(inspect(make_source(tmp_path, train=much_more), max_objects=200)))
    source = make_source(tmp_path, train=unused)
    report = inspect(source)
    assert kinds(report) == ['category_names', 'unused_category']
    repaired, sentences = repair_data(source, report, ['categories'])
    assert inspect(repaired).findings == ()
    assert 'removed 1 unused categories' in sentences[0]


def test_labels_that_cannot_be_read(tmp_path: Path) -> None:
    make_images(tmp_path)
    source = make_source(tmp_path)
    problems = (
        ReadingProblem('malformed-label', tmp_path / 'a.txt', 'a.txt, line 1: five numbers'),
        ReadingProblem('label-without-image', tmp_path / 'b.txt', 'b.txt has no image'),
    )
    train = source.splits['train']
    source.splits['train'] = SourceSplit('train', train.image_root, train.content, problems=problems)  # type: ignore[index]
    report = inspect(source)
    assert kinds(report) == ['unreadable_label', 'label_without_image']
    assert 'a.txt, line 1: five numbers' in report.to_text()
    repaired, sentences = repair_data(source, report, ['labels'])
    assert sentences == ['labels: dropped 2 labels that cannot be used.']
    assert inspect(repaired).findings == ()


def test_sixteen_bits(tmp_path: Path) -> None:
    make_images(tmp_path)
    report = inspect(make_source(tmp_path, train=sixteen_bits))
    assert kinds(report) == ['colour_mode']
    assert '16 bits per channel' in report.findings[0].message


def test_turned_boxes_are_those_of_the_upright_picture(tmp_path: Path) -> None:
    make_images(tmp_path)
    split, change, _ = MISTAKES['rotated_boxes']
    source = make_source(tmp_path, **{split: change})
    source.splits['train'].content['annotations'][0].update(bbox=[2, 10, 12, 14], segmentation=[[2, 10, 14, 10, 2, 24]])
    repaired, _ = repair_data(source, inspect(source), ['orientation'])
    ann = repaired.splits['train'].content['annotations'][0]
    # Orientation 6 turns clockwise: the left edge becomes the upper one, the lower edge the left one.
    assert ann['bbox'] == [64 - 24, 2, 14, 12]
    assert ann['segmentation'] == [[54, 2, 54, 14, 40, 2]]
    source.splits['train'].content['annotations'][0]['segmentation'] = dict(counts='x', size=[1, 1])
    with pytest.raises(DataError, match='a mask that is not a polygon'):
        repair_data(source, inspect(source), ['orientation'])


def test_names_in_several_spellings(tmp_path: Path) -> None:
    def rename(content: dict[str, Any], folder: Path) -> None:
        content['categories'] = [dict(id=1, name='cat'), dict(id=2, name='C at')]

    make_images(tmp_path)
    report = inspect(make_source(tmp_path, train=rename, val=rename))
    assert kinds(report) == ['similar_names']
    assert "1 class with several spellings: 'cat' and 'C at'." in report.findings[0].message


def test_truncated_png_of_a_yolo_set(tmp_path: Path) -> None:
    """The size of a truncated PNG is known, so that its boxes are, too; paths are relative to the data."""
    root = make_yolo(tmp_path / 'yolo')
    path = root / 'images/train/train_01.png'
    path.write_bytes(path.read_bytes()[:1500])
    (root / 'images/train/train_02.png').write_bytes(b'no')
    (root / 'labels/val/val_00.txt').write_text('x')
    report = inspect_data(read_data(root))
    assert {one.kind: one.count for one in report.errors} == dict(truncated=1, unreadable=1, unreadable_label=1)
    assert 'no_objects' not in {one.kind for one in report.findings if one.split == 'train'}
    assert '- labels/val/val_00.txt, line 1: expected numbers only' in report.to_text()


def test_fast_inspection_reads_headers_only(tmp_path: Path) -> None:
    make_images(tmp_path)
    source = make_source(tmp_path, train=MISTAKES['truncated'][1], val=MISTAKES['duplicates'][1])
    report = inspect(source, read_images=False)
    assert report.findings == ()
    assert 'damaged images and duplicates were not looked for' in report.to_text()
    for kind in ('missing_file', 'wrong_size', 'rotated_boxes'):
        folder = tmp_path / kind
        make_images(folder)
        split, change, _ = MISTAKES[kind]
        assert kinds(inspect(make_source(folder, **{split: change}), read_images=False)) == [kind]


def test_sizes_of_the_model(tmp_path: Path) -> None:
    make_images(tmp_path)
    source = make_source(tmp_path)
    assert kinds(inspect_data(source, (8,), WIDTH)) == []
    tiny = inspect_data(source, (8,), WIDTH // 2)
    assert kinds(tiny) == ['tiny', 'tiny']
    assert {finding.severity for finding in tiny.findings} == {'warning'}
    assert 'cat 100 %, dog 100 %' in tiny.findings[0].message
    assert kinds(inspect_data(source, (8,), WIDTH, max_objects=5)) == ['too_many', 'too_many']
    assert 'misses at least 6 objects' in inspect_data(source, (8,), WIDTH, max_objects=5).findings[0].message
    with pytest.raises(ValueError, match='must be positive numbers of pixels'):
        inspect_data(source, (0,))


def test_report_as_dictionary(tmp_path: Path) -> None:
    make_images(tmp_path)
    split, change, _ = MISTAKES['invalid_box']
    content = json.loads(json.dumps(inspect(make_source(tmp_path, **{split: change})).to_dict(), allow_nan=False))
    assert list(content) == [
        *('version', 'root', 'format', 'task', 'counts', 'settings', 'splits', 'classes', 'findings', 'histograms'),
        'notes',
    ]
    assert content['counts'] == dict(error=1, warning=0, note=0)
    finding = content['findings'][0]
    assert finding['examples'][0]['annotation'] == 1
    assert {key: finding[key] for key in ('kind', 'severity', 'split', 'repair', 'count')} == dict(
        kind='invalid_box', severity='error', split='train', repair='invalid', count=1
    )
    assert content['histograms']['short_side']['val'] == {
        '< 4': 0, '4-8': 0, '8-16': 36, '16-32': 0, '32-64': 0, '64-128': 0, '128-256': 0, '256-512': 0, '≥ 512': 0
    }  # fmt: skip
    assert content['histograms']['image_size']['val'] == {'96x64': 6}
    assert content['histograms']['objects_per_image']['val']['5-9'] == 6


def test_repairs_refuse_what_they_do_not_know(tmp_path: Path) -> None:
    make_images(tmp_path)
    source = make_source(tmp_path)
    report = inspect(source)
    with pytest.raises(ValueError, match=r"repairs must be of unreadable, .* got 'all-of-it'"):
        repair_data(source, report, ['all-of-it'])
    assert repair_data(source, report, ['clip'])[1] == ['clip: clipped 0 boxes to their image.']
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'mine').touch()
    with pytest.raises(DataError, match='is not empty; name a new folder'):
        write_source(source, tmp_path / 'out')


def break_classification(source: SourceData) -> None:
    train, val = (source.splits[split] for split in ('train', 'val'))
    (train.image_root / 'cat/0.png').write_bytes(b'no image')
    (val.image_root / 'dog/1.png').write_bytes((train.image_root / 'dog/2.png').read_bytes())


def test_classification(tmp_path: Path) -> None:
    source = make_classification(tmp_path / 'data')
    assert inspect(source).findings == ()
    break_classification(source)
    report = inspect(source)
    assert kinds(report) == ['unreadable', 'duplicates']
    repaired, _ = repair_data(source, report, ['unreadable', 'duplicates'])
    write_source(repaired, tmp_path / 'out')
    again = read_data(tmp_path / 'out')
    assert [len(split.content['images']) for split in again.splits.values()] == [19, 19]
    assert kinds(inspect(again)) == ['few_examples']
    assert again.splits['train'].content['categories'] == source.splits['train'].content['categories']
