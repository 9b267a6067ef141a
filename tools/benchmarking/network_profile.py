"""Where the time of a network goes on a CPU, by torch's profiler."""

from collections import Counter
from collections.abc import Callable
from time import perf_counter

from benchmarking.network_steps import Steps
from torch.profiler import ProfilerActivity, profile

RUNS = 5
# The first part with a word of the operator's name counts. An operator counts without those that it calls. The
# convolution is the patch embedding.
WORDS = {
    'products': ('aten::mm', 'aten::bmm', 'addmm', 'convolution'),
    'token mixing': ('scan', 'attention', 'retention'),
    'causal convolution': ('conv1d',),
    'norms, activations': ('norm', 'gelu', 'silu'),
    'copies': ('copy_', 'aten::cat', 'clone'),
}
REST, OPTIMISER = 'rest', 'optimiser'
PARTS = ('ms', *WORDS, REST, OPTIMISER)


def part_of(operator: str) -> str:
    """Return the part that an operator of this name belongs to."""
    return next((part for part, words in WORDS.items() if any(word in operator for word in words)), REST)


def time_by_part(steps: Steps) -> list[tuple[str, ...]]:
    """Return the rows of both steps: name, and the columns ``PARTS``, in milliseconds.

    Each is the mean of a few runs, with what profiling costs. The optimiser is timed without the profiler.
    """
    inference = _parts(steps.infer)
    steps.train()
    start = perf_counter()
    for _ in range(RUNS):
        steps.optimizer.step()
    optimiser = (perf_counter() - start) / RUNS * 1e3
    training = _parts(steps.differentiate)
    return [_row('inference', inference, 0.0), _row('training', training, optimiser)]


def _parts(step: Callable[[], object]) -> Counter[str]:
    step()
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as profiler:
        for _ in range(RUNS):
            step()
    parts: Counter[str] = Counter()
    for event in profiler.key_averages():
        parts[part_of(event.key)] += event.self_cpu_time_total / RUNS / 1e3
    return parts


def _row(name: str, parts: Counter[str], optimiser: float) -> tuple[str, ...]:
    figures = (parts.total() + optimiser, *(parts[part] for part in (*WORDS, REST)), optimiser)
    return (name, *(f'{figure:.2f}' for figure in figures))
