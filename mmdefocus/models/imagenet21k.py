"""Indices of the ImageNet-1k classes among those of ImageNet-21k, for using 21k models on ImageNet-1k."""

NUM_CLASSES_1K = 1000
NUM_CLASSES_21K = 21841
# Teddy bear is the only class of ImageNet-1k that ImageNet-21k lacks; its closest class there is toy. The published
# 21k -> 1k conversion uses teapot instead, which is a class of ImageNet-1k itself and so occurs twice.
_SUBSTITUTES = {'n04399382': 'n04461879'}


def imagenet1k_indices() -> list[int]:
    """Return the indices of the ImageNet-1k classes among those of ImageNet-21k.

    ImageNet-21k means the 21,841 synsets of the 'fall 2011' release in the order of their ids, as in the published
    classifiers. Other lists (21,843 classes, or the 'winter 2021' release) have other indices. Both lists come from
    timm's tables. 999 indices belong to the same synset and equal the published ones. Teddy bear (class 850) is
    not in ImageNet-21k and gets the index of toy, so its accuracy, 0.1 % of ImageNet's top-1, means little.

    Returns:
        1000 distinct numbers below 21,841, in the order of the ImageNet-1k classes. To reduce logits or the weight of
        a last layer to ImageNet-1k: ``logits[..., indices]``, ``weight[indices]``.

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
    index_of = {synset: index for index, synset in enumerate(synsets_21k)}
    indices = [index_of.get(_SUBSTITUTES.get(synset, synset), -1) for synset in synsets_1k]
    sizes = (len(synsets_1k), len(set(indices)), len(synsets_21k))
    if (
        sizes != (NUM_CLASSES_1K, NUM_CLASSES_1K, NUM_CLASSES_21K)
        or -1 in indices
        or synsets_21k != sorted(synsets_21k)
    ):
        raise RuntimeError(
            'expected 1000 ImageNet-1k synsets, all of them among 21,841 sorted ones, got '
            f'{sizes[0]} with {sizes[1]} distinct indices among {sizes[2]}; install timm 1.0'
        )
    return indices
