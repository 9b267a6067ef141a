# scikit-learn's handwritten digits, enlarged from 8x8 to 32x32 pixels; other writers wrote nearly all test digits.
dataset_type = 'DefocusDigits'
size = 32
# Mean and standard deviation of the enlarged training digits.
data_preprocessor = dict(num_classes=10, mean=[79.0] * 3, std=[89.0] * 3, to_rgb=False)

# No flips: a flipped digit is another sign. Empty areas are filled with black, the background.
train_pipeline = [
    dict(type='NumpyToPIL'),
    dict(
        type='torchvision/RandomAffine',
        degrees=15,
        translate=(0.08, 0.08),
        scale=(0.8, 1.15),
        shear=15,
        interpolation='bilinear',
    ),
    dict(type='PILToNumpy'),
    dict(type='PackInputs'),
]
# The digits have this size already; this step is for your own images.
test_pipeline = [
    dict(type='Resize', scale=(size, size)),
    dict(type='PackInputs'),
]

# Loading a small image takes less time than its transfer from a worker process.
train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type=dataset_type, split='train', size=size, pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=100,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type=dataset_type, split='test', size=size, test_mode=True, pipeline=test_pipeline),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='Accuracy', topk=1)
test_evaluator = val_evaluator
