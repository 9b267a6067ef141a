# The tiny De-focus classifier on the folders train/ and val/ of the current directory.
_base_ = '../../test_tools/toy_image_folder.py'
train_dataloader = dict(dataset=dict(data_root='.'))
val_dataloader = dict(dataset=dict(data_root='.'))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=2)
