"""Networks and images that tools/analysis/over_focus.py cannot analyse."""

from broken_inputs import Case, each

INTRODUCTION = (
    'Networks and images of `tools/analysis/over_focus.py`. It checks all of them before it analyses the first.'
)


def analysis(what: str, says: str, *given: str) -> Case:
    return Case(what, lambda place: place.run('analysis/over_focus.py', *given, '--out', 'report'), says)


CASES = [
    analysis(
        'There is no network',
        'no network among the arguments (images/a.jpg) | [LABEL=]SOURCE[@CHECKPOINT] | add',
        'images/a.jpg',
    ),
    analysis(
        'A word is neither a network nor an image',
        "'defocus-mamba-bas_in1k' is neither | expected [LABEL=]SOURCE[@CHECKPOINT] | did you mean",
        'defocus-mamba-bas_in1k',
        'images',
    ),
    analysis(
        'Two networks have the same label',
        "2 networks have the label 'classifier' | its own | give each",
        'classifier.py@weights.pth',
        'classifier.py',
        'images',
    ),
    analysis(
        'A network has no weights',
        'detector.py has no published weights | a checkpoint | use --random-weights',
        'detector.py',
        'images',
    ),
    analysis(
        'A network has weights of another one',
        'missing ( | weights.pth does not fit detector.py | Use the config of its training',
        'detector.py@weights.pth',
        'images',
    ),
    analysis(
        'timm has no network of a name',
        "'deit_tiny' | timm has no network | did you mean deit_tiny_",
        'timm:deit_tiny',
        'images',
    ),
    analysis(
        'A network moves its tokens',
        "'hiera_tiny_224': Hiera reorders its tokens | expected those of the image | leave the network out",
        'timm:hiera_tiny_224',
        'images',
        '--random-weights',
    ),
    analysis(
        'A network gives no tokens',
        "'dla46_c': DLA has no layers | known to give tokens | name their container",
        'timm:dla46_c',
        'images',
        '--random-weights',
    ),
    analysis(
        'A layer does not exist',
        "got 99 | 'detector': ResNet has the layers 0 to 7 | (or -8 to -1)",
        'detector.py@detector.pth',
        'images',
        '--layers',
        '99',
    ),
    analysis(
        'Attention has no such part',
        'include conv | has no attention that can | omit --include',
        'detector.py@detector.pth',
        'images',
        '--include',
        'conv',
    ),
]


@each(CASES)
def test_a_broken_network_is_refused(case, check):
    check(case)
