"""The canary: shapes in signatures are checked in this session."""

import pytest
import torch
from beartype.roar import BeartypeCallHintParamViolation
from jaxtyping import TypeCheckError

from dreampolish.scene.cameras import distance_from_fov, turntable_cameras


def test_a_wrong_shape_is_refused() -> None:
    with pytest.raises((TypeCheckError, BeartypeCallHintParamViolation)):
        distance_from_fov(torch.ones(2, 2))
    assert len(turntable_cameras(3, 0.0, 20.0, 8)) == 3
