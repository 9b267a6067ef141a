"""Damaged and forged files: the reader returns data or raises CheckpointError, and never runs code."""

import io
import struct
import zipfile

import pytest
from checkpoint_files import (
    FILES,
    FORGED,
    ZIPS,
    change_instructions,
    changed_instructions,
    instructions,
    pickle_of,
    with_pickle,
)
from fuzzing import FUZZ, SEEDS, mutate, mutations, watched
from hypothesis import given
from hypothesis import strategies as st

from mmdefocus.models.checkpoint import CheckpointError
from mmdefocus.models.checkpoint.loaders import load_from_local

# Python and torch warn of strange archives and tensors.
pytestmark = pytest.mark.filterwarnings('ignore')
INSTRUCTIONS = {name: instructions(pickle_of(FILES[name])) for name in ZIPS}


@pytest.fixture(scope='module')
def read(tmp_path_factory):
    """Read a file with such bytes; return its content, or None for one that is refused."""
    path = tmp_path_factory.mktemp('fuzz') / 'file.pth'

    def read(content):
        path.write_bytes(content)
        refusal = None
        with watched():
            try:
                return load_from_local(str(path))
            except CheckpointError as error:
                refusal = str(error)
        assert 'file.pth' in refusal
        assert len(refusal) < 3000
        return None

    return read


def test_the_files_are_read_unless_they_are_changed(read):
    for name, content in FILES.items():
        assert read(content)['state_dict'], name
    assert read(with_pickle(FILES['training'], b''.join(INSTRUCTIONS['training'])))['meta']['epoch'] == 3


@pytest.mark.parametrize('path', sorted(SEEDS.glob('*.pth')), ids=lambda path: path.stem)
def test_files_that_were_found(read, path):
    assert read(path.read_bytes()) is None


@given(st.binary(max_size=300), st.sampled_from((b'', b'PK\x03\x04', b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.')))
@FUZZ
def test_random_bytes(read, content, head):
    read(head + content)


@given(st.sampled_from(sorted(FILES)), mutations())
@FUZZ
def test_changed_bytes(read, name, changes):
    read(mutate(FILES[name], changes))


@given(st.sampled_from(ZIPS), mutations())
@FUZZ
def test_changed_bytes_of_the_pickle(read, name, changes):
    read(with_pickle(FILES[name], mutate(pickle_of(FILES[name]), changes)))


@given(st.sampled_from(ZIPS), changed_instructions())
@FUZZ
def test_changed_instructions_of_the_pickle(read, name, changes):
    read(with_pickle(FILES[name], change_instructions(INSTRUCTIONS[name], changes)))


@given(st.lists(st.sampled_from(FORGED), max_size=30))
@FUZZ
def test_forged_pickles(read, listed):
    read(with_pickle(FILES['training'], b'\x80\x02' + b''.join(listed) + b'.'))


NAMES = ('a/data.pkl', 'a/data/0', 'a/data/1', 'a/version', 'a/byteorder', '/data.pkl', '../data.pkl', 'a/', 'a/.d')
CONTENTS = (pickle_of(FILES['training']), b'little', b'3\n', b'1', bytes(64))
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
ENTRIES = st.tuples(
    st.sampled_from(NAMES), st.sampled_from(CONTENTS) | st.binary(max_size=20), st.sampled_from(COMPRESSIONS)
)


@given(st.lists(ENTRIES, max_size=5), st.lists(st.tuples(st.integers(0, 60), st.integers(0, 2**16 - 1)), max_size=3))
@FUZZ
def test_forged_archives(read, entries, fields):
    """Archives of such entries, with other numbers in their directory."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w') as archive:
        for name, content, compression in entries:
            archive.writestr(name, content, compression)
    content = bytearray(file.getvalue())
    directory = content.find(b'PK\x01\x02')
    for place, value in fields:
        at = directory + place
        if 0 <= at < len(content) - 2:
            struct.pack_into('<H', content, at, value)
    read(bytes(content))
