_base_ = 'mmdet::dino/dino-4scale_r50_improved_8xb2-12e_coco.py'
custom_imports = dict(
    imports=['mmdefocus.models', 'mmdefocus.datasets', 'mmdefocus.engine'], allow_failed_imports=False
)

model = dict(
    backbone=dict(
        _delete_=True,
        type='DefocusMamba',
        arch='base',
        token_order='window',
        pretrain_size=224,
        # Sides 224 -> 1024: about (1024 / 224)**2 and 1024 / 224, hand-rounded where the model was published.
        rope_scale=20.0,
        delta_scale=4.57,
        drop_path_rate=0.5,
        final_norm_eps=1e-5,
        out_type='featmap',
        # The activations of all blocks take many GiB for two images of 800 x 1333 otherwise.
        with_cp=True,
        # The published classifier, downloaded at the first start; None starts from random weights.
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://github.com/OpenGVLab/De-focus-Attention-Networks/releases/download/v1.0/'
            'defocus_mamba_base_cls.pth',
        ),
    ),
    neck=dict(
        _delete_=True,
        type='SimpleFeaturePyramid',
        in_channels=768,
        out_channels=256,
        num_outs=4,
        norm_cfg=dict(type='DefocusLN2d', eps=1e-5),
    ),
)

train_dataloader = dict(persistent_workers=False, dataset=dict(type='DefocusCocoDataset'))
val_dataloader = dict(dataset=dict(type='DefocusCocoDataset'))
test_dataloader = val_dataloader
val_evaluator = dict(type='DefocusCocoMetric')
test_evaluator = val_evaluator

# As in ../_base_/runtimes/detection.py; mmdet's config has brought its own runtime.
default_hooks = dict(
    sampler_seed=dict(type='DefocusEpochSeedHook'),
    finite_loss=dict(type='DefocusFiniteLossHook'),
    class_count=dict(type='DefocusClassCountHook'),
    ground_truth_check=dict(type='DefocusGroundTruthCheckHook'),
)
randomness = dict(seed=None, diff_rank_seed=True)
