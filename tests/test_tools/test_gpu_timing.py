"""Times of GPU calls, on a simulated GPU: they are those of the GPU, not of Python, and say so if they are not."""

import dataclasses

import pytest
import torch
from benchmarking import gpu_timing
from benchmarking.gpu_timing import MOST_CALLS, SPAN, Timing, capture, time_on_gpu
from benchmarking.machine import Machine
from simulated_gpu import SimulatedGpu


@pytest.fixture
def simulate(monkeypatch):
    def install(**options: float) -> SimulatedGpu:
        gpu = SimulatedGpu(**options)
        monkeypatch.setattr(gpu_timing, 'cuda', gpu)
        monkeypatch.setattr(gpu_timing, 'perf_counter', gpu.perf_counter)
        return gpu

    return install


def batches(log: list[str]) -> list[list[str]]:
    """Split what was launched at each wait for the GPU, without the parts that have no two events."""
    parts = ' '.join(log).split('synchronize')
    return [part.split() for part in parts if part.split().count('event') == 2]


@pytest.mark.parametrize(('launch', 'kernel'), [(50e-6, 5e-6), (5e-6, 50e-6), (20e-6, 20e-6), (1e-3, 0.2)])
def test_time_is_that_of_the_gpu_even_if_python_is_slower(simulate, launch, kernel):
    gpu = simulate(launch=launch, kernel=kernel)
    timing = time_on_gpu(gpu.call, seconds=0.1)
    assert timing.seconds == pytest.approx(kernel, rel=1e-6)
    assert not timing.host_bound


def test_each_batch_queues_ahead_and_is_divided_by_its_calls(simulate):
    gpu = simulate(launch=50e-6, kernel=5e-6)
    time_on_gpu(gpu.call, seconds=0.01)
    found = batches(gpu.log)
    assert found[0] == ['spin', 'event', 'spin', 'event'], 'the rate of the spin kernel'
    calls = [batch.count('call') for batch in found[1:]]
    assert found[1:] == [['spin', 'event', *['call'] * count, 'event'] for count in calls]
    assert calls[-1] * 5e-6 >= SPAN, 'well above the resolution of events'
    assert calls[-1] == calls[-2] == calls[-3] <= MOST_CALLS


def test_fewer_calls_where_the_queue_is_short(simulate):
    """Three launches fit into the queue: the GPU waits for Python in batches of four calls and more."""
    gpu = simulate(launch=50e-6, kernel=5e-6, depth=4)
    timing = time_on_gpu(gpu.call, seconds=0.01)
    assert batches(gpu.log)[-1].count('call') < 8
    assert timing.seconds == pytest.approx(5e-6, rel=1e-6)
    assert not timing.host_bound


def test_a_call_of_more_launches_than_the_queue_holds_is_marked(simulate):
    gpu = simulate(launch=50e-6, kernel=5e-6, depth=100)

    def many_kernels():
        for _ in range(1000):
            gpu.call()

    timing = time_on_gpu(many_kernels, seconds=0.5)
    assert timing.host_bound
    assert timing.seconds > 0.9 * 900 * 50e-6
    assert timing.milliseconds.endswith(' (host)')


def test_a_call_of_many_launches_is_not_marked_if_the_gpu_is_slower(simulate):
    gpu = simulate(launch=5e-6, kernel=20e-6, depth=100)

    def many_kernels():
        for _ in range(1000):
            gpu.call()

    timing = time_on_gpu(many_kernels, seconds=0.5)
    assert timing.seconds == pytest.approx(1000 * 20e-6, rel=1e-6)
    assert not timing.host_bound


def test_long_calls_run_once_more_than_necessary(simulate):
    gpu = simulate(launch=1e-3, kernel=2.0)
    assert time_on_gpu(gpu.call, seconds=0.5).seconds == pytest.approx(2.0)
    assert gpu.log.count('call') == 4, 'warm-up, estimate, number of calls, measurement'
    gpu.log.clear()
    time_on_gpu(gpu.call, seconds=0.5, at_least=3)
    assert gpu.log.count('call') == 6


def test_graphs_are_captured_once_and_replayed(simulate):
    gpu = simulate(launch=50e-6, kernel=5e-6)
    replay = capture(gpu.call)
    assert gpu.log == ['call'] * 3 + ['captured']
    assert time_on_gpu(replay, seconds=0.01).seconds == pytest.approx(5e-6, rel=1e-6)
    assert gpu.graphs[0].replays > 100
    assert gpu.log.count('call') == 3


@pytest.fixture
def machine():
    """A machine with a GPU whose rates are not measured."""
    machine = Machine.__new__(Machine)
    machine.device, machine.seconds, machine.cuda_graphs = torch.device('cuda'), 0.01, True
    return machine


def test_plain_time_beside_that_of_the_graph(simulate, machine):
    gpu = simulate(launch=50e-6, kernel=5e-6)
    timing = machine.timing(gpu.call)
    assert timing.seconds == pytest.approx(5e-6, rel=1e-6)
    assert timing.graph_seconds == pytest.approx(5e-6, rel=1e-6)
    assert (timing.milliseconds, timing.graph_milliseconds) == ('0.005', '0.005')
    machine.cuda_graphs = False
    assert machine.timing(gpu.call).graph_seconds is None


def test_calls_that_cannot_be_captured_say_so(simulate, machine, capsys):
    gpu = simulate(launch=50e-6, kernel=5e-6)

    def waits():
        if gpu.capturing:
            raise RuntimeError('operation not permitted when stream is capturing\nmore')
        gpu.call()

    timing = machine.timing(waits)
    assert timing.graph_seconds is None
    assert timing.graph_milliseconds == ''
    assert timing.seconds == pytest.approx(5e-6, rel=1e-6)
    message = 'not captured as a CUDA graph: operation not permitted when stream is capturing\n'
    assert capsys.readouterr().out == message


def test_columns_of_gpu_reports():
    from benchmarking.measurement import Measurement
    from benchmarking.operator_tables import sections
    from benchmarking.operators import Shape
    from benchmarking.scans import DEFOCUS_SCAN

    timing = Timing(148e-6, graph_seconds=120e-6)
    common = dict(operator=DEFOCUS_SCAN, shape=Shape(64, 197, 1536), dtype='bfloat16', passes='forward')
    good = Measurement(
        **common,
        implementation='cuda',
        error=1e-3,
        tolerance=4e-3,
        yardstick=1e-3,
        timing=timing,
        moved=10**8,
        roofline=(36e-6, 74e-6, 0.0),
    )
    bad = Measurement(**common, implementation='triton', error=1.0, tolerance=4e-3)
    host = dataclasses.replace(good, implementation='reference', timing=Timing(148e-6, host_bound=True))
    header, _, yardstick, *rows = [
        [cell.strip() for cell in line.strip('|').split('|')]
        for line in sections([good, bad, host], ('of exp', 'graph ms')).splitlines()
        if line.startswith('|')
    ]
    assert header[-3:] == ['error', 'of exp', 'graph ms']
    assert yardstick[-2:] == ['', '']
    assert [row[-2:] for row in rows] == [['50%', '0.120'], ['', ''], ['50%', '']]
    assert [row[4] for row in rows] == ['0.148', '', '0.148 (host)']
    assert rows[0][9] == '24%, 50%, -'


def test_exponentials_of_the_fused_scan_are_those_of_its_recurrence():
    """At (64, 197), 1536 channels and 16 states: 3.1e8, 74 µs at 4.2e12 per second."""
    from benchmarking.operators import Shape
    from benchmarking.scans import DEFOCUS_SCAN

    assert DEFOCUS_SCAN.exponentials(Shape(64, 197, 1536)) == 64 * 197 * 1536 * 16
