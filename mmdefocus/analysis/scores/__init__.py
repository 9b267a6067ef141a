"""Scores of over-focus: how concentrated attention and gradients are, and how much they depend on the query."""

from .map_scores import MapScores, map_scores
from .network_scores import scores
from .registry import ALL_SCORES, SCORES, Score
from .table import ScoreTable

__all__ = ['ALL_SCORES', 'SCORES', 'MapScores', 'Score', 'ScoreTable', 'map_scores', 'scores']
