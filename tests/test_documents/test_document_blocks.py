"""Blocks without a test, wrong comments and blocks that do not do what their page says are errors."""

import re

import pytest
from document_blocks import ROOT, WORDS, PageError, pages, read_blocks
from page_session import ALONE, WITH_VALUE, BlockError


def test_all_pages_are_found():
    assert {
        'README.md',
        'CONTRIBUTING.md',
        'docs/options.md',
        'docs/benchmarks/README.md',
        'configs/dino/README.md',
    } <= set(pages())


def test_contributing_explains_every_word():
    page = (ROOT / 'CONTRIBUTING.md').read_text()
    assert re.findall(r'^\| `<!-- ([\w ]+?)(?::.*)? -->` \|', page, re.MULTILINE) == list(WORDS)
    items = re.findall(r'^\| `([\w-]+)(?: .*)?` \|', page.partition('item of `needs`')[2], re.MULTILINE)
    assert sorted(items) == sorted((*WITH_VALUE, *ALONE))


def test_blocks_in_lists_and_indented_blocks_are_found():
    text = '1. Do this:\n\n   ```bash\n   true\n   ```\n\nText.\n\n<!-- bash -->\n    false\n'
    first, second = read_blocks('page.md', text)
    assert (first.language, first.code, first.line) == ('bash', 'true\n', 3)
    assert (second.language, second.code, second.words) == ('', 'false\n', {'bash': ''})


def test_all_comments_directly_above_a_block_belong_to_it():
    text = '<!-- output -->\n\n<!-- needs: photo a.jpg -->\n<!-- before:\ntrue\n-->\n```bash\ntrue\n```\n'
    (block,) = read_blocks('page.md', text)
    assert block.words == {'needs': 'photo a.jpg', 'before': 'true'}


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('Words:\n\n    no language\n', r'page\.md:3: nothing tests this block\. Name its language, one of bash'),
        ('```\nno language\n```\n', r'write one of <!-- output -->, <!-- file -->'),
        ('```console\n$ true\n```\n', r'page\.md:1: nothing tests this block'),
        ('```python\ntrain_cfg = dict(max_epochs=2)\n```\n', r'these are settings, which do nothing by themselves'),
        ('<!-- skip -->\n```bash\ntrue\n```\n', r'page\.md:2: expected one of the comments needs, let, .* got .skip.'),
        ('<!-- needs -->\n```bash\ntrue\n```\n', r'expected <!-- needs: … -->, got .needs.'),
        ('<!-- bash: yes -->\n```\ntrue\n```\n', r'expected <!-- bash -->, got .bash: yes.'),
    ],
)
def test_a_block_without_a_test_is_an_error(text, message):
    with pytest.raises(PageError, match=message):
        read_blocks('page.md', text)


@pytest.fixture
def check(session):
    def check(text):
        run = session()
        for block in read_blocks('page.md', text):
            run.check(block)

    return check


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('```bash\nfalse | true\n```\n', r'page\.md:1 ended with status 1'),
        ('```python\nimport os\nos.nothing()\n```\n', r'AttributeError'),
        ('```python\nraise SystemExit(3)\n```\n', r'ended with status 3'),
        ('<!-- prints: b -->\n```bash\necho a\n```\n', r'page\.md:2 does not print .b.'),
        ('<!-- fails: no -->\n```bash\necho no\n```\n', r'should fail with .no., but ended with status 0'),
        ('```bash\necho a\n```\n<!-- output -->\n```\nb\n```\n', r'the block before it did not print .b.'),
        ('<!-- needs: gold -->\n```bash\ntrue\n```\n', r'expected one of download, gpus, .* got .gold.'),
        ('<!-- needs: photo -->\n```bash\ntrue\n```\n', r'with a path, in <!-- needs: … -->; got .photo.'),
        ('<!-- let: NAME=a -->\n```bash\ntrue\n```\n', r'has no .NAME. to replace'),
        ('```json\n{"a": }\n```\n', r'page\.md:1 is no json'),
        ('```bibtex\n@article{a,\n  title = {b}\n}\n```\n', r'expected an entry with title, author and year'),
        ('<!-- paths -->\n    nowhere/x.py   a file\n', r'there is no .nowhere/x\.py.'),
        ('<!-- tested by: tests/test_main.py::test_nothing -->\n    a = b\n', r'there is no test'),
        ('```bash\nsource .venv/bin/activate\npip install torch\n```\n', r'needs: packages --> for pip'),
        ('<!-- needs: packages -->\n```bash\npip install --nonsense\n```\n', r'no such option: --nonsense'),
        (
            '<!-- needs: packages -->\n```bash\npip install -c requirements/constraints.txt leftpad\n```\n',
            r'requirements/constraints\.txt does not have \[.leftpad.\]',
        ),
        ('<!-- needs: make -->\n```bash\nmake nothing\n```\n', r'No rule to make target'),
        ('```bash\ntools/dist_train.sh configs/dino/x.py 8\n```\n', r'needs: gpus --> for --nproc_per_node=8'),
        ('<!-- parse -->\n```bash\npython tools/get_flops.py a.py --shap\n```\n', r'expected at least one argument'),
    ],
)
def test_a_block_that_fails_is_an_error(check, text, message):
    with pytest.raises(BlockError, match=message):
        check(text)


def test_blocks_run_in_one_directory_each_in_a_new_shell(check):
    check(
        '```bash\nexport VALUE=1\necho hello > file.txt\n```\n'
        '<!-- prints: hello; unset -->\n```bash\ncat file.txt\necho "${VALUE:-unset}"\n```\n'
        '<!-- output -->\n```\nh…o\nunset\n```\n'
        '<!-- fails: no such option -->\n<!-- needs: packages -->\n```bash\npip install --nonsense\n```\n'
    )


def test_settings_are_merged_into_a_config_and_trained(check):
    check(
        '<!-- needs: digit-images data/images, all-epochs -->\n'
        '<!-- merge: configs/classification/defocus_mamba_nano_folder.py -->\n'
        '<!-- prints: Epoch(train) [3][2/2] -->\n'
        '```python\ntrain_cfg = dict(max_epochs=3)\ndefault_hooks = dict(logger=dict(interval=1))\n```\n'
        '```bash\ntest -f work_dirs/defocus_mamba_nano_folder_changed/epoch_3.pth\n```\n'
    )


def test_python_runs_as_the_interpreter_does(check):
    check(
        '<!-- prints: 1 file.py; 2 -c; 3 a; 4 - -->\n```bash\n'
        "echo 'import sys; print(1, *sys.argv)' > file.py\n"
        "python file.py\npython -c 'import sys; print(2, *sys.argv)'\npython -m file a\n"
        "python - <<< 'import sys; print(4, *sys.argv)'\n"
        "echo 'print(3, sys.argv[1])' >> file.py\npython -u -m file a\n"
        'python -c "import mmdefocus, os; assert not os.environ.get(\'NOTHING\')"\n```\n'
    )
