"""What the numbers of a report mean, in plain words."""

from mmdefocus.evaluation.statistics import ClassificationStatistics, DetectionStatistics

_ADVICE = {
    'classification': 'objects that are found with the wrong class; look at the confusion matrix',
    'localisation': 'boxes that are too imprecise; check the annotated boxes, and try larger images',
    'both': 'boxes with the wrong class that are also imprecise',
    'duplicate': 'several boxes for one object',
    'background': 'boxes where there is nothing; look at the false positives, some may be unannotated objects',
    'missed': 'objects that are not found at all; look at the false negatives',
}


def detection_verdict(statistics: DetectionStatistics) -> list[str]:
    """Return sentences about a detector, the most important first."""
    ap, ap50 = statistics.table.get('AP'), statistics.table.get('AP50')
    if ap is None or ap50 is None:
        return ['The validation set has no objects, so there is no average precision.']
    sentences = [
        f'AP is {ap:.3f} (AP at IoU 0.5: {ap50:.3f}) on {statistics.images} images with {statistics.objects} objects.'
    ]
    costs = [(error.delta_ap or 0.0, error) for error in statistics.errors if error.name in _ADVICE]
    loss, worst = max(costs, key=lambda pair: pair[0])
    if loss > 0.005:
        sentences.append(
            f'Most is lost by {_ADVICE[worst.name]}: without this error, AP at IoU {statistics.iou:g} would be '
            f'{loss:.3f} higher.'
        )
    else:
        sentences.append(f'No single kind of error costs more than 0.005 of AP at IoU {statistics.iou:g}.')
    if (best := statistics.threshold) is not None:
        sentences.append(
            f'Show boxes from score {best.score:.2f} on: {best.precision:.0%} of them are right, and they find '
            f'{best.recall:.0%} of the objects.'
        )
    else:
        sentences.append('No prediction is right, so no score threshold is useful. Try mmdefocus check-data first.')
    known = [one for one in statistics.classes if one.AP is not None]
    weakest = min(known, key=lambda one: one.AP or 0.0)
    if len(known) > 1:
        sentences.append(f'The weakest class is {weakest.name} (AP {weakest.AP:.3f}, {weakest.objects} objects).')
    absent = [one.name for one in statistics.classes if not one.objects]
    if absent:
        more = ' and more' if len(absent) > 5 else ''
        sentences.append(f'The validation set has no objects of {", ".join(absent[:5])}{more}.')
    return sentences


def classification_verdict(statistics: ClassificationStatistics) -> list[str]:
    """Return sentences about a classifier, the most important first."""
    if statistics.top1 is None:
        return ['The validation set has no images, so there is no accuracy.']
    sentences = [f'{statistics.top1:.1%} of {statistics.images} images are right.']
    confusion = statistics.confusion.copy()
    for one in range(len(confusion)):
        confusion[one, one] = 0
    if confusion.any():
        row, column = divmod(int(confusion.argmax()), confusion.shape[1])
        names = statistics.labels
        sentences.append(
            f'The most frequent mistake: {names[row]} is taken for {names[column]} ({confusion[row, column]} times).'
        )
    known = [one for one in statistics.classes if one.recall is not None]
    weakest = min(known, key=lambda one: one.recall or 0.0)
    if weakest.recall is not None and weakest.recall < 1:
        sentences.append(
            f'The weakest class is {weakest.name}: {weakest.recall:.0%} of its {weakest.images} images are recognised.'
        )
    error = statistics.calibration.error
    if error is not None:
        sentences.append(f'Scores differ from the share of right predictions by {error:.1%} on average.')
    return sentences
