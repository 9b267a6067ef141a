# The training of plain networks: no auxiliary head, and drop path at the constant rate of DeiT.
_base_ = './imagenet_300ep.py'

model = dict(head=dict(aux=None))
default_hooks = dict(drop_path=dict(max_rate=0.1, mode='constant'))
