"""Insertion and deletion curves."""

import pytest
import torch
from torch import nn

from mmdefocus.analysis.errors import AnalysisError
from mmdefocus.analysis.faithfulness import insertion_deletion
from mmdefocus.models import DefocusMamba

GRID, SIDE, CELL = (4, 6), (16, 24), (2, 5)


class OneCell(nn.Module):
    """A classifier that looks only at the brightness of one cell of 4 x 4 pixels: class 1 if it is bright."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(nn.Identity())

    def forward(self, images):
        row, column = (4 * position for position in CELL)
        bright = self.blocks(images)[:, :, row : row + 4, column : column + 4].mean((1, 2, 3))
        return 100 * torch.stack((-bright, bright), dim=1)


def image():
    """Bright in the cell, dark around it, so that its mean and its blur are dark."""
    images = torch.full((1, 3, *SIDE), -1.0)
    row, column = (4 * position for position in CELL)
    images[:, :, row : row + 4, column : column + 4] = 1.0
    return images


def saliency(value=1.0):
    maps = torch.zeros(1, *GRID)
    maps[0, CELL[0], CELL[1]] = value
    return maps


@pytest.mark.parametrize('baseline', ['blur', 'mean'])
def test_perfect_map(baseline):
    result = insertion_deletion(OneCell(), image(), saliency(), steps=24, baseline=baseline)
    assert result.classes.tolist() == [1]
    torch.testing.assert_close(result.fractions, torch.arange(25) / 24)
    torch.testing.assert_close(result.insertion, (torch.arange(25) > 0).float()[None])
    torch.testing.assert_close(result.deletion, (torch.arange(25) == 0).float()[None])
    assert result.area(result.insertion).item() == pytest.approx(1 - 0.5 / 24)
    assert result.area(result.deletion).item() == pytest.approx(0.5 / 24)


def test_worst_map():
    result = insertion_deletion(OneCell(), image(), saliency(-1.0), steps=24)
    torch.testing.assert_close(result.insertion, (torch.arange(25) == 24).float()[None])
    torch.testing.assert_close(result.deletion, (torch.arange(25) < 24).float()[None])


def test_the_random_order_finds_the_cell_at_its_place():
    first = insertion_deletion(OneCell(), image(), saliency(), steps=24, seed=3)
    place = int(first.random_insertion[0].sum())
    assert 0 < place < 25
    torch.testing.assert_close(first.random_deletion, 1 - first.random_insertion)
    areas = [
        result.area(result.random_insertion).item()
        for seed in range(60)
        for result in [insertion_deletion(OneCell(), image(), saliency(), steps=24, seed=seed)]
    ]
    assert sum(areas) / 60 == pytest.approx(0.5, abs=0.1)  # the standard error is 0.04
    again = insertion_deletion(OneCell(), image(), saliency(), steps=24, seed=3)
    torch.testing.assert_close(again.random_insertion, first.random_insertion)


def test_cells_are_replaced_in_even_steps():
    result = insertion_deletion(OneCell(), image(), saliency(), steps=5)
    torch.testing.assert_close(result.fractions, torch.tensor([0, 5, 10, 14, 19, 24]) / 24)
    assert insertion_deletion(OneCell(), image(), saliency()).fractions.shape == (17,)


def test_classes_may_be_given():
    images = image().repeat(2, 1, 1, 1)
    result = insertion_deletion(OneCell(), images, saliency().repeat(2, 1, 1), classes=torch.tensor([0, 1]), steps=24)
    torch.testing.assert_close(result.deletion[0], 1 - result.deletion[1])


def test_cells_of_a_padded_image_are_its_patches():
    torch.manual_seed(0)
    backbone = DefocusMamba(arch='nano', img_size=16, patch_size=4, out_type='cls_token')

    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone, self.head = backbone, nn.Identity()
            self.seen = []

        def forward(self, images, mode):
            self.seen.append(images)
            return self.backbone(images)[0]

    model = Classifier()
    images = torch.randn(1, 3, 13, 17)  # 4 x 5 patches of 4 pixels, the last ones with a single row or column
    maps = torch.zeros(1, 4, 5)
    maps[0, 3, 4] = 1
    insertion_deletion(model, images, maps, steps=20, baseline='mean')
    first = model.seen[2]  # after the complete image and the baseline
    kept = (first == images).all(1)[0]
    assert kept.nonzero().tolist() == [[12, 16]]


def test_errors():
    model = OneCell()
    with pytest.raises(AnalysisError, match=r'expected finite maps \(images, rows, columns\) for 1 images, got'):
        insertion_deletion(model, image(), saliency()[0])
    with pytest.raises(AnalysisError, match=r'with values that are not finite'):
        insertion_deletion(model, image(), saliency(torch.nan))
    with pytest.raises(AnalysisError, match=r'expected steps from 1 to 24, the number of cells, got 25'):
        insertion_deletion(model, image(), saliency(), steps=25)
    with pytest.raises(AnalysisError, match=r"expected baseline to be 'blur' or 'mean', got 'black'"):
        insertion_deletion(model, image(), saliency(), baseline='black')
    with pytest.raises(AnalysisError, match=r'expected 1 classes from 0 to 1, one per image, got \[2\]'):
        insertion_deletion(model, image(), saliency(), classes=torch.tensor([2]))
    with pytest.raises(AnalysisError, match=r'7 x 24 cells do not divide images of 16 x 24 pixels'):
        insertion_deletion(model, image(), torch.zeros(1, 7, 24))
    with pytest.raises(AnalysisError, match=r'DefocusMamba gives no class logits; expected a classifier'):
        insertion_deletion(DefocusMamba(arch='nano', img_size=16, patch_size=4), image(), saliency())


def test_the_mode_is_restored():
    model = OneCell().train()
    insertion_deletion(model, image(), saliency(), steps=2)
    assert model.training
    assert model.blocks.training
