# scikit-learn's handwritten digits, 8x8 pixels enlarged to 32x32; nearly all test digits are by other writers.
dataset_type = 'DefocusDigits'
size = 32
# Mean and standard deviation of the enlarged training digits.
data_preprocessor = dict(num_classes=10, mean=[79.0] * 3, std=[89.0] * 3, to_rgb=False)

# No flips: a mirrored digit is another sign. What moves into the image is black, as its ground.
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
# The digits have this size already; images of a user's own get it here.
test_pipeline = [
    dict(type='Resize', scale=(size, size)),
    dict(type='PackInputs'),
]

# Small images load faster than a worker process would hand them over.
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
