"""The adapter between official checkpoint files of the family and ours."""

from mmdefocus.models.checkpoint.families import (
    CheckpointFamily,
    Rule,
    register_family,
    rename_from_official,
    rename_to_official,
)

# Official prefix, our prefix, and a regular expression of the rest of the name.
RULES = (
    Rule('blocks.', 'backbone.layers.', r'\d+\.(?:norm|mixer)\..+'),
    Rule('stem.', 'backbone.patch_embed.projection.', 'weight|bias'),
    Rule('', 'backbone.', r'cls_token|norm\.(?:weight|bias)'),
    Rule('head.', 'head.', r'(?:fc|aux_fc)\.(?:weight|bias)'),
)


class ToyFamily(CheckpointFamily):
    """Classifiers of ToyNet."""

    name = 'toy'
    title = 'ToyNet'
    classifiers = ('head.fc', 'head.aux_fc')

    def recognises_official(self, names):
        return 'stem.weight' in names and 'blocks.0.mixer.rate' in names

    def recognises_ours(self, names):
        return 'backbone.layers.0.mixer.rate' in names

    def from_official(self, names):
        return rename_from_official(names, RULES)

    def to_official(self, names, kind):
        return rename_to_official(names, RULES)

    def model_config(self, state_dict):
        return {'backbone': dict(type='ToyNet', arch='nano', img_size=32, patch_size=4)}


register_family(ToyFamily())
