# The same without what the paper adds in training: no auxiliary head, and drop path at the rate of DeiT throughout.
_base_ = './imagenet_300ep.py'

model = dict(head=dict(aux=None))
custom_hooks = _base_.custom_hooks
custom_hooks[1].update(max_rate=0.1, mode='constant')  # DefocusScheduledDropPathHook
