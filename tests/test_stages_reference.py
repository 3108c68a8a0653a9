"""Choosing among the candidates of the reference stage."""

import pytest
import torch

from stages.reference import mirror_symmetry


def test_a_mirrored_silhouette_is_wholly_symmetric() -> None:
    alpha = torch.zeros(8, 8)
    alpha[2:6, 1:7] = 1.0
    assert mirror_symmetry(alpha) == pytest.approx(1.0)


def test_symmetry_is_the_overlap_with_the_mirror_image() -> None:
    alpha = torch.zeros(8, 8)
    alpha[2:6, 1:5] = 1.0  # mirrored: columns 3..6, two of four shared
    assert mirror_symmetry(alpha) == pytest.approx(2 / 6)


def test_nothing_seen_is_not_symmetric() -> None:
    assert mirror_symmetry(torch.zeros(8, 8)) == 0.0
