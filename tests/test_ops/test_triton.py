import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_bandpass_attention import make
from test_causal_conv1d import make as make_conv
from test_defocus_scan import make as make_scan
from test_neighbourhood_attention import make as make_map

from mmdefocus.ops import bandpass_attention, causal_conv1d, defocus_scan, neighbourhood_attention

CALLS = {
    bandpass_attention: lambda dtype: bandpass_attention(**make(dtype=dtype), backend='triton'),
    defocus_scan: lambda dtype: defocus_scan(**make_scan(dtype=dtype), group_size=8, backend='triton'),
    causal_conv1d: lambda dtype: causal_conv1d(*make_conv(dtype=dtype), backend='triton'),
    neighbourhood_attention: lambda dtype: neighbourhood_attention(
        **make_map(dtype=dtype), kernel_size=3, backend='triton'
    ),
}

# Compares FLOP counts in the first calls of a process, which import the kernels.
COUNTS = """
import sys
import torch
from torch.utils.flop_counter import FlopCounterMode
from mmdefocus.ops import bandpass_attention, causal_conv1d, defocus_scan, neighbourhood_attention
from test_bandpass_attention import make
from test_causal_conv1d import make as make_conv
from test_defocus_scan import OPTIONS, make as make_scan
from test_neighbourhood_attention import make as make_map

def count(function, arguments, **options):
    tensors = {name: x.requires_grad_(x.is_floating_point()) for name, x in arguments.items()}
    with FlopCounterMode(display=False) as forward:
        y = function(**tensors, **options)
    with FlopCounterMode(display=False) as backward:
        y.sum().backward()
    return forward.get_total_flops(), backward.get_total_flops()

calls = [(bandpass_attention, make(heads=1, length=n), {'causal': causal}) for n, causal in ((9, True), (70, False))]
calls.append((defocus_scan, make_scan(batch=1, length=2), OPTIONS))
calls.append((causal_conv1d, dict(zip(('x', 'weight', 'bias'), make_conv(length=5))), {}))
calls.append((neighbourhood_attention, make_map(4, 3, batch=1, heads=1), {'kernel_size': 3}))
for function, arguments, options in calls:
    counts = [count(function, arguments, **options, backend=backend) for backend in ('triton', None)]
    assert min(counts[1]) > 0 and counts[0] == counts[1], (function.__name__, options, counts)
"""


def test_flops_are_those_of_the_other_backends_from_the_first_call_on():
    environment = {**os.environ, 'TRITON_INTERPRET': '1'}
    folder = Path(__file__).parent
    done = subprocess.run([sys.executable, '-c', COUNTS], capture_output=True, text=True, cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr


def test_kernels_in_the_interpreter():
    """Run the tests in a separate process, because TRITON_INTERPRET must be set before Triton is imported."""
    names = ('', 'scan_', 'conv_', 'neighbourhood_')
    cases = [str(Path(__file__).with_name(f'triton_{name}interpreted.py')) for name in names]
    done = subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', *cases],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, 'TRITON_INTERPRET': '1'},
    )
    assert done.returncode == 0, done.stdout
    assert int(re.search(r'(\d+) passed', done.stdout)[1]) > 125


@pytest.mark.parametrize('operator', CALLS)
@pytest.mark.parametrize(
    ('dtype', 'message'), [(torch.float32, 'run on GPU tensors, got tensors on cpu'), (torch.float64, 'got float64')]
)
def test_unsupported_arguments_raise(operator, dtype, message):
    with pytest.raises(RuntimeError, match=f"backend 'triton' cannot run: its kernels .*{message}"):
        CALLS[operator](dtype)
