"""The models of the zoo as tables; :class:`mmdefocus.apis.zoo.ZooModel` has the meaning of the columns."""

# Name, config below the folder `configs`, height and width of an image, parameters, multiply-adds.
ZooRow = tuple[str, str, tuple[int, int], int, int]

_COCO = (800, 1333)
_IMAGENET = (224, 224)
_NANO = (320, 320)

DETECTORS: tuple[ZooRow, ...] = (
    ('defocus_mamba_nano', 'dino/defocus_mamba_nano.py', _NANO, 1027276, 1081530240),
    ('defocus_mamba_small', 'dino/defocus_mamba_small_12ep.py', _COCO, 46308396, 929651862528),
    ('defocus_mamba_base', 'dino/defocus_mamba_base_12ep.py', _COCO, 115360140, 1261240528896),
    ('defocus_mamba_large', 'dino/defocus_mamba_large_12ep.py', _COCO, 344166732, 3060902062080),
    ('defocus_vit_nano', 'dino/defocus_vit_nano.py', _NANO, 1201164, 3275694336),
    ('defocus_vit_base', 'dino/defocus_vit_base_12ep.py', _COCO, 109885452, 1636575768576),
    ('defocus_retnet_nano', 'dino/defocus_retnet_nano.py', _NANO, 1234572, 1562833536),
    ('defocus_retnet_base', 'dino/defocus_retnet_base_12ep.py', _COCO, 116880396, 1281245156352),
    ('fcvit_nano', 'dino/fcvit_nano.py', _NANO, 965700, 697986752),
    ('fcvit_b24', 'dino/fcvit_b24_12ep.py', _COCO, 46562892, 307166314496),
    ('dat_nano', 'dino/dat_nano.py', _NANO, 1645556, 1056224000),
    ('dat_pp_tiny', 'dino/dat_pp_tiny_12ep.py', _COCO, 43549024, 328782013824),
    ('dat_pp_small', 'dino/dat_pp_small_12ep.py', _COCO, 73162410, 458366669376),
)
CLASSIFIERS: tuple[ZooRow, ...] = (
    ('defocus_mamba_nano', 'classification/defocus_mamba_nano_folder.py', (32, 32), 472080, 19984512),
    ('defocus_mamba_small', 'classification/defocus_mamba_small.py', _IMAGENET, 25092944, 4925681664),
    ('defocus_mamba_base', 'classification/defocus_mamba_base_finetune.py', _IMAGENET, 92650832, 18217426944),
    ('defocus_mamba_large', 'classification/defocus_mamba_large_finetune.py', (384, 384), 330117840, 185399353344),
    ('defocus_vit_nano', 'classification/defocus_vit_nano_folder.py', (32, 32), 645968, 32389632),
    ('defocus_vit_small', 'classification/defocus_vit_small.py', _IMAGENET, 22355408, 4598882304),
    ('defocus_vit_base', 'classification/defocus_vit_base.py', _IMAGENET, 87176144, 17563828224),
    ('defocus_retnet_nano', 'classification/defocus_retnet_nano_folder.py', (32, 32), 679376, 39455616),
    ('defocus_retnet_base', 'classification/defocus_retnet_base.py', _IMAGENET, 94171088, 19048055808),
    ('fcvit_nano', 'classification/fcvit_nano_folder.py', (32, 32), 491648, 3132608),
    ('fcvit_tiny', 'classification/fcvit_tiny.py', _IMAGENET, 4784752, 901541376),
    ('fcvit_b12', 'classification/fcvit_b12.py', _IMAGENET, 14701832, 2645471232),
    ('fcvit_b24', 'classification/fcvit_b24.py', _IMAGENET, 26960232, 5058617344),
    ('fcvit_b48', 'classification/fcvit_b48.py', _IMAGENET, 51477032, 9884909568),
    ('dat_nano', 'classification/dat_nano_folder.py', (64, 64), 1108560, 24754624),
    ('dat_tiny', 'classification/dat_tiny.py', _IMAGENET, 28319138, 4563459840),
    ('dat_small', 'classification/dat_small.py', _IMAGENET, 49700402, 8958726912),
    ('dat_base', 'classification/dat_base.py', _IMAGENET, 87881632, 15721415680),
    ('dat_pp_tiny', 'classification/dat_pp_tiny.py', _IMAGENET, 23962876, 4258983616),
    ('dat_pp_small', 'classification/dat_pp_small.py', _IMAGENET, 53127366, 9382477344),
    ('dat_pp_base', 'classification/dat_pp_base.py', _IMAGENET, 93690640, 16501972352),
)
# Names in model-index.yml.
PUBLISHED = {
    ('detection', 'defocus_mamba_base'): 'defocus_mamba_base_36ep',
    ('classification', 'defocus_mamba_base'): 'defocus-mamba-base_3rdparty_in1k',
    ('classification', 'defocus_mamba_large'): 'defocus-mamba-large_in21k-pre_3rdparty_in1k-384px',
}
# Peak memory of the process in MiB: inference of one image, training steps of two images; tools/measure_zoo.py.
MEMORY: dict[tuple[str, str], tuple[int | None, int | None]] = {
    ('detection', 'defocus_mamba_nano'): (925, 1139),
    ('detection', 'defocus_vit_nano'): (954, 1278),
    ('detection', 'defocus_retnet_nano'): (928, 1324),
    ('detection', 'fcvit_nano'): (927, 1180),
    ('detection', 'dat_nano'): (939, 1279),
    ('detection', 'defocus_mamba_small'): (6217, None),
    ('detection', 'defocus_mamba_base'): (6493, None),
    ('detection', 'defocus_mamba_large'): (7333, None),
    ('detection', 'defocus_vit_base'): (6638, None),
    ('detection', 'defocus_retnet_base'): (6686, None),
    ('detection', 'fcvit_b24'): (2565, None),
    ('detection', 'dat_pp_tiny'): (2448, None),
    ('detection', 'dat_pp_small'): (2628, None),
    ('classification', 'defocus_mamba_nano'): (879, 895),
    ('classification', 'defocus_mamba_small'): (980, 1485),
    ('classification', 'defocus_mamba_base'): (1243, 2804),
    ('classification', 'defocus_mamba_large'): (2191, 8599),
    ('classification', 'defocus_vit_nano'): (883, 904),
    ('classification', 'defocus_vit_small'): (976, 1458),
    ('classification', 'defocus_vit_base'): (1232, 2759),
    ('classification', 'defocus_retnet_nano'): (882, 905),
    ('classification', 'defocus_retnet_base'): (1261, 2920),
    ('classification', 'fcvit_nano'): (882, 900),
    ('classification', 'fcvit_tiny'): (920, 1232),
    ('classification', 'fcvit_b12'): (976, 1506),
    ('classification', 'fcvit_b24'): (1018, 2003),
    ('classification', 'fcvit_b48'): (1112, 3026),
    ('classification', 'dat_nano'): (887, 923),
    ('classification', 'dat_tiny'): (1016, 1639),
    ('classification', 'dat_small'): (1109, 2132),
    ('classification', 'dat_base'): (1258, 2937),
    ('classification', 'dat_pp_tiny'): (985, 1641),
    ('classification', 'dat_pp_small'): (1123, 2300),
    ('classification', 'dat_pp_base'): (1306, 3154),
}
# Trained checkpoints that are part of the package.
EXAMPLES = {('detection', 'defocus_mamba_nano')}
