"""The search for image files before training, and errors of a pipeline; through the data sets elsewhere."""

import pytest
from mmengine.dataset import Compose

from mmdefocus.datasets import DefocusLoadImage, MissingFileError
from mmdefocus.datasets.image_files import check_files_exist, errors_name

LOADING = Compose([DefocusLoadImage()])


def test_addresses_are_passed_over(tmp_path):
    check_files_exist('FILE', ['http://example.org/a.jpg'], LOADING)
    with pytest.raises(MissingFileError, match=r'^FILE lists 2 images, of which 1 do not exist, the first is .*b\.jpg'):
        check_files_exist('FILE', ['http://example.org/a.jpg', str(tmp_path / 'b.jpg')], LOADING)


def test_every_folder_is_listed_once_and_read_whole(tmp_path, monkeypatch):
    for name in ('one', 'two'):
        (tmp_path / name).mkdir()
        for image in ('a.jpg', 'b.jpg'):
            (tmp_path / name / image).touch()
    paths = [str(path) for path in sorted(tmp_path.glob('*/*.jpg'))]
    check_files_exist('FILE', paths, LOADING)
    with pytest.raises(MissingFileError, match=r'lists 6 images, of which 2 do not exist, the first is .*one/c\.jpg'):
        check_files_exist('FILE', [*paths, str(tmp_path / 'one' / 'c.jpg'), str(tmp_path / 'gone' / 'a.jpg')], LOADING)


def test_files_of_the_current_directory(tmp_path, monkeypatch):
    (tmp_path / 'a.jpg').touch()
    monkeypatch.chdir(tmp_path)
    check_files_exist('FILE', ['a.jpg'], LOADING)
    with pytest.raises(MissingFileError, match=rf"the first is 'b\.jpg' \(current directory '{tmp_path}'\)"):
        check_files_exist('FILE', ['a.jpg', 'b.jpg'], LOADING)


def test_nothing_is_looked_for_without_a_loading_step():
    check_files_exist('FILE', ['gone.jpg'], Compose([]))


@pytest.mark.parametrize(
    ('image', 'message'),
    [
        ({'img_path': 'a.jpg'}, "^image file 'a.jpg': the pipeline failed with KeyError: 'scale'; correct the steps"),
        (
            {'img_path': 'a.jpg', 'width': 4, 'height': 3},
            r"^image file 'a.jpg' \(4x3 pixels\): the pipeline failed with KeyError: 'scale'; correct the steps",
        ),
    ],
)
def test_errors_name_the_image(image, message):
    with pytest.raises(ValueError, match=message), errors_name(image):
        raise KeyError('scale')


@pytest.mark.parametrize('image', [{}, {'img_path': 'a.jpg'}])
def test_errors_that_name_it_or_have_no_image_stay(image):
    with pytest.raises(KeyError, match=r'a\.jpg'), errors_name(image):
        raise KeyError('a.jpg')
