"""The page that explains a trained detector or classifier."""

import dataclasses
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmdefocus.datasets.prepared import PreparedData, Task, prepare_data
from mmdefocus.engine.safe_writing import write_safely
from mmdefocus.evaluation.statistics import analyse_classification, analyse_detections
from mmdefocus.pages import Page, Text, write_page

from .errors import UsageError
from .latency import Latency, measure_latency
from .named_model import find_task
from .report_parts.classification_sections import add_classification
from .report_parts.curve_sections import add_curves
from .report_parts.detection_sections import add_detection
from .report_parts.evaluation import evaluate_classifier, evaluate_detector, validation_config
from .report_parts.history import find_checkpoint, find_config, find_seed, find_start, read_history
from .report_parts.machine_sections import add_latency, add_repetition, describe_environment, to_json
from .report_parts.verdict import classification_verdict, detection_verdict
from .runs.config_file import load_config


def write_report(
    work_dir: str | Path,
    out: str | Path | None = None,
    checkpoint: str | Path | None = None,
    device: str | None = None,
    latency: bool = True,
    data: str | Path | None = None,
    **latency_options: Any,
) -> Path:
    """Evaluate a training and write ``index.html`` and ``report.json``.

    Args:
        work_dir: Work directory of a training of MMEngine, with its config, logs and checkpoints.
        out: Folder for the report; None for ``report`` in the work directory.
        checkpoint: What to evaluate; None for the newest best checkpoint, or else the newest one.
        device: Device on which to measure the latency; None for a GPU if there is one, and else the CPU.
        latency: Measure the latency.
        data: Data whose split ``val`` is evaluated, in any format that a training takes; None for the validation set of
            the config. Annotations are prepared in the folder ``data`` of the report.
        **latency_options: Options of :func:`~mmdefocus.apis.latency.measure_latency`.

    Returns:
        The page.

    Raises:
        UsageError: There is no training in the directory, or it cannot be evaluated.
        DataError: The data have mistakes.
    """
    work_dir = Path(work_dir)
    folder = work_dir / 'report' if out is None else Path(out)
    config = find_config(work_dir)
    cfg = load_config(config, work_dir=str(work_dir))
    weights = find_checkpoint(work_dir, checkpoint)
    history = read_history(work_dir)
    task = find_task(cfg, str(config))
    prepared = None if data is None else _prepare(cfg, data, folder, task)
    tested = validation_config(cfg, weights, folder, prepared)
    explained, sentences, metrics, score, statistics = _explain(tested, task)
    measured = _latency(cfg, weights, device, latency, latency_options)
    environment = describe_environment()

    page = Page(f'Report of {config.stem}', f'{work_dir.absolute()} · {weights.name}')
    page.add('Summary', Text('\n\n'.join(sentences)), *_other_data(prepared))
    add_curves(page, history)
    page.sections += explained.sections
    add_latency(page, measured, score)
    seed = find_seed(weights)
    command = add_repetition(page, cfg, config, weights, seed, find_start(work_dir, cfg), environment)
    content = {
        'summary': sentences,
        'checkpoint': str(weights),
        'data': None if prepared is None else str(prepared.root),
        'metrics': metrics,
        'statistics': statistics,
        'latency': measured if isinstance(measured, str) else [dataclasses.asdict(one) for one in measured],
        'history': {'steps': list(history.steps.values()), 'validations': list(history.validations.values())},
        'notes': history.notes,
        'seed': seed,
        'command': command,
        'environment': environment,
    }
    write_safely(folder / 'report.json', to_json(content).encode())
    return write_page(page, folder / 'index.html')


def _explain(
    cfg: Config, task: Task
) -> tuple[Page, list[str], dict[str, Any], tuple[str, float] | None, dict[str, Any]]:
    """Return the sections of the task, the verdict, the metrics, the score and all statistics."""
    page = Page('')
    if task == 'detection':
        boxes = evaluate_detector(cfg)
        found = analyse_detections(boxes.truth, boxes.predictions)
        add_detection(page, found, boxes.paths)
        ap = found.table.get('AP')
        return (
            page,
            detection_verdict(found),
            dict(boxes.metrics),
            ('AP', ap) if ap is not None else None,
            found.to_dict(),
        )
    images = evaluate_classifier(cfg)
    classified = analyse_classification(images.scores, images.labels, images.classes, images.names)
    add_classification(page, classified, images.pictures)
    score = None if classified.top1 is None else ('accuracy', classified.top1)
    return page, classification_verdict(classified), dict(images.metrics), score, classified.to_dict()


def _prepare(cfg: Config, data: str | Path, folder: Path, task: Task) -> PreparedData:
    seed = (cfg.get('randomness') or {}).get('seed') or 0  # draws the images that the training drew
    return prepare_data(data, folder / 'data', seed=seed, task=task)


def _other_data(data: PreparedData | None) -> list[Text]:
    if data is None:
        return []
    sentences = [f'This is about the split val of {data.root}, not of the validation set of the training.', *data.notes]
    return [Text('\n\n'.join(sentences), 'warning')]


def _latency(
    cfg: Config, weights: Path, device: str | None, wanted: bool, options: dict[str, Any]
) -> list[Latency] | str:
    if not wanted:
        return 'Not measured: latency was switched off.'
    try:
        return measure_latency(cfg, str(weights), device, **options)
    except (UsageError, RuntimeError, ValueError, KeyError, TypeError) as error:
        return f'Not measured: {type(error).__name__}: {error}'
