import subprocess
import sys

# The program also runs operators, which would reveal a deferred import.
PROGRAM = """
import sys
for name in ('mmengine', 'mmcv', 'mmdet', 'mmpretrain', 'triton', 'mamba_ssm', 'causal_conv1d', 'sklearn',
             'supervision'):
    sys.modules[name] = None
import torch
import mmdefocus
assert {'Classifier', 'Detector'} <= set(dir(mmdefocus)) & set(mmdefocus.__all__)
from mmdefocus.ops import causal_conv1d, selective_scan
x = torch.ones(1, 2, 3)
y = selective_scan(causal_conv1d(x, torch.ones(2, 4)), x, -torch.ones(2, 4), torch.ones(1, 4, 3), torch.ones(1, 4, 3))
assert y.shape == x.shape and y.isfinite().all()
"""


def test_operators_need_only_torch():
    done = subprocess.run([sys.executable, '-c', PROGRAM], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
