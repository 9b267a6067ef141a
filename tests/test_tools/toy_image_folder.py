# A De-focus classifier of a few thousand parameters on a folder of images per class; data_root is set by the test.
_base_ = '../../configs/classification/defocus_mamba_nano_folder.py'
arch = dict(embed_dims=16, num_layers=2, inner_dims=32, state_dims=4, conv_kernel=4, dt_rank=2, group_size=16)
model = dict(backbone=dict(arch=dict(_delete_=True, **arch)), head=dict(in_channels=16))
train_dataloader = dict(batch_size=4)
train_cfg = dict(max_epochs=2)
optim_wrapper = dict(optimizer=dict(lr=0.3))
randomness = dict(seed=0)
env_cfg = dict(mp_cfg=dict(opencv_num_threads=1))
