"""From settings to weights over the predictions, at every step of a stage."""

import pytest

from dreampolish.priors.distillation.weights import (
    ScoreWeights,
    SplitWeights,
    csd_weights,
    dsd_weights,
    nfsd_weights,
    sds_weights,
    vsd_weights,
)
from schemas.config.shared.guidance import DistillationConfig, GeometryTextConfig
from stages.guidance.objectives import needs_variational, weights_at

HALVED = {"start": 4.0, "end": 2.0}


@pytest.mark.parametrize("kind", [GeometryTextConfig, DistillationConfig])
@pytest.mark.parametrize(
    ("settings", "first", "last"),
    [
        ({"objective": "sds", "guidance_scale": HALVED}, sds_weights(4.0), sds_weights(2.0)),
        ({"objective": "nfsd", "guidance_scale": HALVED}, nfsd_weights(4.0), nfsd_weights(2.0)),
        ({"objective": "csd", "negative_share": {"start": 0.0, "end": 0.5}}, csd_weights(0.0), csd_weights(0.5)),
        (
            {
                "objective": "weights",
                "weights": {"e_y": HALVED, "e_0": {"start": -4.0, "end": -1.0}, "e_n": 0.0, "eps": {"start": 0, "end": -1}},
            },
            ScoreWeights(4.0, -4.0, 0.0, 0.0, 0.0),
            ScoreWeights(2.0, -1.0, 0.0, 0.0, -1.0),
        ),
    ],
)
def test_objectives_of_every_stage(
    kind: type[GeometryTextConfig] | type[DistillationConfig],
    settings: dict[str, object],
    first: ScoreWeights | SplitWeights,
    last: ScoreWeights | SplitWeights,
) -> None:
    config = kind.model_validate(settings)
    assert weights_at(config, 0, 11) == first
    assert weights_at(config, 10, 11) == last


def test_objectives_of_the_texture_alone() -> None:
    vsd = DistillationConfig.model_validate({"objective": "vsd", "guidance_scale": HALVED})
    assert weights_at(vsd, 0, 3) == vsd_weights(4.0)
    dsd = DistillationConfig.model_validate({"lambda_realistic": {"start": 1.0, "end": 0.0}, "lambda_stable": 0.5})
    assert weights_at(dsd, 0, 3) == dsd_weights(1.0, 0.5)
    assert weights_at(dsd, 1, 3) == dsd_weights(0.5, 0.5)
    own = {"objective": "weights", "weights": {"e_y": 1, "e_0": 0, "e_lora": -1}}
    assert weights_at(DistillationConfig.model_validate(own), 0, 3) == ScoreWeights(1.0, 0.0, 0.0, -1.0, 0.0)


@pytest.mark.parametrize(
    ("settings", "needed"),
    [
        ({"objective": "vsd"}, True),
        ({"objective": "dsd"}, True),
        ({"objective": "dsd", "lambda_realistic": {"start": 0, "end": 1}}, True),
        ({"objective": "dsd", "lambda_realistic": 0}, False),
        ({"objective": "sds"}, False),
        ({"objective": "weights", "weights": {"e_y": 1, "e_0": 0, "e_lora": -1}}, True),
        ({"objective": "weights"}, False),
    ],
)
def test_a_lora_is_fitted_only_where_it_is_read(settings: dict[str, object], needed: bool) -> None:
    assert needs_variational(DistillationConfig.model_validate(settings)) is needed
