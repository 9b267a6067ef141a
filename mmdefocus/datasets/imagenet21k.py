"""Where the classes of ImageNet-1k are among those of ImageNet-21k, to evaluate or tune a 21k model on them."""

# Teddy bear, the only class of ImageNet-1k that the list of 21,841 lacks, and what comes closest in it: toy. The
# published 21k -> 1k conversion uses teapot here, which is a class of ImageNet-1k itself and so occurs twice in it.
_SUBSTITUTES = {'n04399382': 'n04461879'}


def imagenet1k_indices() -> list[int]:
    """Positions of the ImageNet-1k classes among those of ImageNet-21k.

    The latter are the 21,841 synsets of the 'fall 2011' release in the order of their ids, as in the published
    classifiers; other lists (21,843 classes, or the 'winter 2021' release) have other positions. Both lists come from
    timm's tables. 999 positions are those of the same synset and equal the published ones. Teddy bear (class 850) is
    not in ImageNet-21k and has the position of toy, so its accuracy, 0.1 % of ImageNet's top-1, means little.

    Returns:
        1000 distinct numbers below 21,841, in the order of the ImageNet-1k classes. A head's output or last weight is
        reduced to ImageNet-1k by ``[..., indices]`` and ``weight[indices]``.

    Raises:
        ImportError: timm is not installed.
        RuntimeError: The installed timm has other tables.
    """
    try:
        from timm.data import ImageNetInfo
    except ImportError as error:
        raise ImportError(
            f'the list of ImageNet-21k classes is taken from timm, which cannot be imported ({error}); '
            'run "pip install timm"'
        ) from error
    synsets_21k = ImageNetInfo('imagenet-22k').label_names()
    synsets_1k = ImageNetInfo('imagenet-1k').label_names()
    position = {synset: index for index, synset in enumerate(synsets_21k)}
    indices = [position.get(_SUBSTITUTES.get(synset, synset), -1) for synset in synsets_1k]
    sizes = (len(synsets_1k), len(set(indices)), len(synsets_21k))
    if sizes != (1000, 1000, 21841) or -1 in indices or synsets_21k != sorted(synsets_21k):
        raise RuntimeError(
            'expected 1000 ImageNet-1k synsets, all of them among 21,841 sorted ones, got '
            f'{sizes[0]} with {sizes[1]} distinct positions among {sizes[2]}; install timm 1.0'
        )
    return indices
