"""The kinds of findings: how serious each one is, what to do about it, and which repair removes it."""

from dataclasses import dataclass
from typing import Literal

Severity = Literal['error', 'warning', 'note']


@dataclass(frozen=True)
class Kind:
    """One kind of finding.

    Attributes:
        title: Heading in reports.
        severity: ``error``: training refuses the data, loses boxes or learns something wrong. ``warning``: results
            suffer or mislead. ``note``: worth knowing.
        remedy: What the user can do.
        repair: Name of the repair that removes the finding; None if a person has to decide.
    """

    title: str
    severity: Severity
    remedy: str
    repair: str | None = None


KINDS: dict[str, Kind] = {
    # entries of annotation files
    'malformed': Kind('Malformed entries', 'error', 'Export the annotations again in the format that they claim.'),
    'ambiguous_ids': Kind(
        'Ids or names that occur twice', 'error', 'Make them distinct; boxes cannot be assigned otherwise.'
    ),
    'duplicate_ids': Kind('Annotation ids that occur twice', 'error', 'Number the annotations again.', 'ids'),
    'unknown_image': Kind(
        'Annotations of unknown images', 'error', 'List their images, or drop the annotations.', 'strays'
    ),
    'unknown_category': Kind(
        'Unknown categories', 'error', 'Add the categories to the file, or drop what refers to them.', 'categories'
    ),
    'invalid_area': Kind(
        'Wrong values of area or iscrowd',
        'error',
        'Write the area of the mask, or the width times the height of the box, and 0 or 1 as iscrowd.',
        'area',
    ),
    'unreadable_label': Kind('Unreadable labels', 'error', 'Correct these files, or drop the labels.', 'labels'),
    'label_without_image': Kind(
        'Label files without an image', 'error', 'Add the images, or drop the labels.', 'labels'
    ),
    # images
    'missing_file': Kind(
        'Missing image files', 'error', 'Restore the files, or drop the images with their boxes.', 'unreadable'
    ),
    'unreadable': Kind(
        'Unreadable images', 'error', 'Convert or replace the files, or drop the images with their boxes.', 'unreadable'
    ),
    'truncated': Kind(
        'Truncated images', 'error', 'Copy the files again, or drop the images with their boxes.', 'unreadable'
    ),
    'damaged': Kind(
        'Images with corrupt data',
        'error',
        'Restore the files, drop the images with their boxes, or train with allow_corrupt=True of DefocusLoadImage.',
        'unreadable',
    ),
    'listed_twice': Kind('Images listed twice', 'error', 'List each file once, with all its annotations.', 'merge'),
    'unlisted': Kind(
        'Image files without an entry', 'note', 'List them if they belong to the data; they are not used otherwise.'
    ),
    'wrong_size': Kind(
        'Sizes that differ from the image files',
        'error',
        'Write the sizes of the files, and make sure that the boxes were drawn on these files.',
        'sizes',
    ),
    'rotated': Kind(
        'Images turned by their EXIF orientation',
        'note',
        'Nothing, if the boxes fit the picture as viewers show it: mmdefocus turns images upright when it loads them.',
    ),
    'rotated_boxes': Kind(
        'Boxes for the stored orientation of turned images',
        'error',
        'Turn the boxes: mmdefocus turns images upright when it loads them.',
        'orientation',
    ),
    'rotation_unclear': Kind(
        'Turned images whose size does not tell the orientation of the boxes',
        'warning',
        'Look at the pictures: boxes must fit the image as viewers show it. Save the images without EXIF orientation.',
    ),
    'colour_mode': Kind(
        'Colour modes that change on loading',
        'warning',
        'Convert the images to 8-bit RGB yourself, with a range that keeps what matters.',
    ),
    'transparent': Kind(
        'Images with transparency',
        'note',
        'Flatten the images on a background if the hidden colours are not meant to be seen.',
    ),
    # boxes
    'invalid_box': Kind(
        'Boxes that are not four finite numbers', 'error', 'Correct the boxes, or drop them.', 'invalid'
    ),
    'xyxy': Kind(
        'Boxes written as two corners', 'error', 'Write [x, y, width, height] in place of [x1, y1, x2, y2].', 'xyxy'
    ),
    'normalised': Kind(
        'Boxes in fractions of the image',
        'error',
        'Write pixels. The numbers do not say whether they begin at a corner or at the centre, so that no repair is '
        'offered: export the set again.',
    ),
    'outside': Kind('Boxes outside their image', 'error', 'Correct the boxes, or drop them.', 'empty'),
    'empty': Kind('Empty boxes', 'error', 'Correct the boxes, or drop them.', 'empty'),
    'partly_outside': Kind('Boxes that reach beyond their image', 'warning', 'Clip the boxes to the image.', 'clip'),
    'twins': Kind('Boxes that occur twice', 'warning', 'Keep one box per object.', 'twins'),
    'crowds': Kind(
        'Crowds', 'note', 'Nothing: boxes with iscrowd=1 are left out of training, and matched leniently in evaluation.'
    ),
    # objects against the model
    'tiny': Kind(
        'Objects smaller than the finest stride',
        'warning',
        'Train and test with larger images or crops, or with a model of finer strides.',
    ),
    'whole_image': Kind(
        'Boxes of nearly the whole image',
        'note',
        'Look whether they are objects, or labels of whole images, which call for a classifier.',
    ),
    'too_many': Kind(
        'Images with more objects than the model predicts',
        'warning',
        'Raise num_queries and max_per_img of the model, or cut the images into tiles.',
    ),
    # classes and splits
    'no_boxes': Kind('No boxes to train on', 'error', 'Annotate the training images.'),
    'no_objects': Kind(
        'Images without objects', 'note', 'Nothing, if they show background. Annotate them if they show objects.'
    ),
    'unused_category': Kind(
        'Categories without objects', 'warning', 'Remove them, or annotate their objects.', 'categories'
    ),
    'similar_names': Kind(
        'Names that differ only in case or blanks', 'warning', 'Merge these classes if they are the same.'
    ),
    'category_names': Kind(
        'Splits with different categories', 'error', 'Give all splits the same categories.', 'categories'
    ),
    'category_ids': Kind(
        'Splits with different ids or order of categories',
        'warning',
        'Give all splits the same ids: results of one are then comparable with those of another.',
        'categories',
    ),
    'class_in_one_split': Kind(
        'Classes that a split lacks',
        'warning',
        'Divide the images anew: a class is learnt only from training images, and measured only on others.',
    ),
    'few_examples': Kind('Classes with few training examples', 'warning', 'Collect more, or merge classes.'),
    'imbalance': Kind(
        'Very unequal classes', 'note', 'Consider ClassBalancedDataset, or collect more of the rare classes.'
    ),
    'duplicates': Kind(
        'Equal pictures in two splits',
        'warning',
        'Keep each picture in one split: a score on training images is too high.',
        'duplicates',
    ),
}
