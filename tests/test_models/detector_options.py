"""Arguments of a backbone in the published detectors."""

DETECTOR = {
    'out_type': 'featmap',
    'blocks_in_fp32': True,
    'patch_embed_init': 'kaiming_normal',
    'scale_rule': 'per_image',
}
