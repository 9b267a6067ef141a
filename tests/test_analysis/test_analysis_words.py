"""Words of a command that name networks and images."""

import pytest

from mmdefocus.apis.analysis_words import ModelWord, named_images, parse_model, split_words
from mmdefocus.apis.errors import UsageError


@pytest.mark.parametrize(
    ('word', 'expected'),
    [
        ('nano.py', ModelWord('nano', 'nano.py', None)),
        ('configs/nano.py@runs/epoch_1.pth', ModelWord('nano', 'configs/nano.py', 'runs/epoch_1.pth')),
        ('Mamba=configs/nano.py@w.pth', ModelWord('Mamba', 'configs/nano.py', 'w.pth')),
        ('timm:deit_tiny', ModelWord('deit_tiny', 'timm:deit_tiny', None)),
        ('A b=timm:deit_tiny@w.pth', ModelWord('A b', 'timm:deit_tiny', 'w.pth')),
        ('resnet18_8xb32_in1k', ModelWord('resnet18_8xb32_in1k', 'resnet18_8xb32_in1k', None)),
        ('nano.py@https://host/w.pth?a=b@c', ModelWord('nano', 'nano.py', 'https://host/w.pth?a=b@c')),
        (r'X=C:\nets\nano.py@D:\w.pth', ModelWord('X', r'C:\nets\nano.py', r'D:\w.pth')),
        ('runs/lr=1/nano.py', ModelWord('nano', 'runs/lr=1/nano.py', None)),
        (r'C:\lr=1\nano.py', ModelWord('nano', r'C:\lr=1\nano.py', None)),
    ],
)
def test_a_word_is_split(word, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert parse_model(word) == expected


@pytest.mark.parametrize(
    ('file', 'word', 'expected'),
    [
        ('lr=1.py', 'lr=1.py', ModelWord('lr=1', 'lr=1.py', None)),
        ('lr=1.py', 'lr=1.py@w.pth', ModelWord('lr=1', 'lr=1.py', 'w.pth')),
        ('lr=1.py', 'A=lr=1.py@w.pth', ModelWord('A', 'lr=1.py', 'w.pth')),
        ('a@b.py', 'a@b.py', ModelWord('a@b', 'a@b.py', None)),
        ('a@b.py', 'X=a@b.py@w@v.pth', ModelWord('X', 'a@b.py', 'w@v.pth')),
        ('a@b/nano.py', 'a@b/nano.py', ModelWord('nano', 'a@b/nano.py', None)),
    ],
)
def test_an_existing_file_wins(file, word, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).touch()
    assert parse_model(word) == expected


@pytest.mark.parametrize('word', ['=nano.py', 'A=', 'nano.py@', '@w.pth', 'A=@w.pth'])
def test_empty_parts_are_errors(word):
    with pytest.raises(UsageError, match=r'with an empty part; complete it'):
        parse_model(word)


def test_networks_and_images_may_be_mixed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'folder').mkdir()
    words = ['a.png', 'nano.py', 'https://host/picture?id=3', 'folder', 'T=timm:x', 'Resnet18_8xb32_in1k', 'B.JPEG']
    models, images = split_words(words)
    assert [model.source for model in models] == ['nano.py', 'timm:x', 'Resnet18_8xb32_in1k']
    assert images == ['a.png', 'https://host/picture?id=3', 'folder', 'B.JPEG']


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['nano.py'], r'no image among the arguments \(nano\.py\); add a file or URL'),
        (['a.png'], r'no network among the arguments \(a\.png\); add \[LABEL=\]SOURCE'),
        (
            ['nano.py', 'a.gif'],
            r"'a\.gif' is neither a network nor an image: expected \[LABEL.* folder.*correct it",
        ),
        (
            ['defocus-mamba-smal_in1k', 'a.png'],
            r'neither a network nor an image.*did you mean defocus-mamba-small',
        ),
        (['a.py', 'b/a.py', 'a.png'], r"2 networks have the label 'a'; give each its own: LABEL=SOURCE"),
    ],
)
def test_words_that_make_no_sense_are_errors(words, message):
    with pytest.raises(UsageError, match=message):
        split_words(words)


def test_a_file_that_is_neither_is_an_error(tmp_path):
    (tmp_path / 'notes.txt').touch()
    with pytest.raises(UsageError, match=r'notes\.txt.*rename the file if it is an image or a config'):
        split_words([str(tmp_path / 'notes.txt')])


def test_images_have_names(tmp_path):
    for name in ('b/one.png', 'b/two.png', 'a/one.png', 'a/no_image.txt'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    one, two, other = (str(tmp_path / name) for name in ('b/one.png', 'b/two.png', 'a/one.png'))
    url = 'https://host/x/three.png?size=1'
    found = named_images([str(tmp_path / 'b'), two, other, url])
    assert found == {one: one, 'two.png': two, other: other, 'three.png': url}


def test_a_folder_without_images_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'expected images in folder'):
        named_images([str(tmp_path)])
