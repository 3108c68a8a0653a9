"""Sets painted together take the prior's own views, on its own background."""

from collections.abc import Sequence

import torch

from dreampolish.priors.protocols import SetSubject
from dreampolish.scene.cameras import Cameras, orbit_cameras
from schemas.config.shared.guidance import ViewTargetsConfig
from schemas.config.shared.schedule import constant
from stages.guidance.painted.painters import SetPainter, on_background
from stages.guidance.painted.view_targets import ViewTargets
from stages.guidance.reference_view import ReferenceView

SIZE = 32
CONFIG = ViewTargetsConfig(rgb_weight=constant(1.0), mask_weight=constant(1.0), paint_at=(0.0, 1.0), n_views=4)


class SetsOnGrey:
    """Paints a dark square on grey into every view, and notes what it was given."""

    image_size, background = SIZE, 0.5
    own_views = ((30.0, 20.0), (90.0, -10.0), (150.0, 20.0))

    def __init__(self) -> None:
        self.given: list[tuple[SetSubject, torch.Tensor, tuple[tuple[float, float], ...]]] = []

    def repaint(
        self, subject: SetSubject, images: torch.Tensor, views: Sequence[tuple[float, float]], **told: object
    ) -> torch.Tensor:
        """A set."""
        self.given.append((subject, images.clone(), tuple(views)))
        painted = torch.full_like(images, 0.5)
        painted[..., 8:24, 8:24] = 0.1
        return painted


def _reference() -> ReferenceView:
    mask = torch.zeros(1, SIZE, SIZE)
    mask[:, 8:24, 8:24] = 1
    picture = torch.ones(1, SIZE, SIZE, 3) * (1 - 0.7 * mask[..., None])
    camera = orbit_cameras(torch.zeros(1), torch.full((1,), 5.0), torch.full((1,), 20.0), SIZE)
    return ReferenceView(picture, mask, torch.zeros_like(picture), camera, "a chair", original=picture)


def _render(cameras: Cameras) -> torch.Tensor:
    """A dark block on white."""
    picture = torch.ones(len(cameras), cameras.size, cameras.size, 3)
    picture[:, 10:22, 10:22] = 0.2
    return picture


def test_grey_becomes_white_and_back() -> None:
    grey = torch.full((1, 3, SIZE, SIZE), 0.5)
    grey[..., 8:24, 8:24] = 0.1
    white = on_background(grey, 0.5, 1.0)
    assert torch.equal(white[..., 0, 0], torch.ones(1, 3))
    assert torch.allclose(white[..., 16, 16], torch.full((1, 3), 0.1), atol=1e-5)
    assert torch.allclose(on_background(white, 1.0, 0.5), grey, atol=0.02)
    noise = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    assert torch.equal(on_background(noise, 0.5, 1.0), noise)  # no plain border: nothing can be cut


def test_a_sets_own_views_become_the_targets() -> None:
    prior, generator = SetsOnGrey(), torch.Generator().manual_seed(0)
    targets = ViewTargets(CONFIG, 11, SIZE, SetPainter(prior, _reference(), CONFIG, generator), generator=generator)
    targets.paint_if_due(0, _render)
    cameras = targets.cameras()
    assert list(zip(cameras.azimuth_deg.tolist(), cameras.elevation_deg.tolist(), strict=True)) == list(prior.own_views)
    assert torch.equal(targets.pictures()[:, 0, 0], torch.ones(3, 3))
    assert float(targets.coverage()[:, 16, 16].min()) == 1
    assert float(targets.coverage()[:, 0, 0].max()) == 0
    subject, _, views = prior.given[0]
    assert views == prior.own_views
    assert (subject.prompt, subject.elevation_deg) == ("a chair", 5.0)
    assert torch.equal(subject.mask[0, 0], _reference().mask[0])


def test_later_paintings_begin_with_the_renders_on_the_priors_grey() -> None:
    prior, generator = SetsOnGrey(), torch.Generator().manual_seed(0)
    targets = ViewTargets(CONFIG, 11, SIZE, SetPainter(prior, _reference(), CONFIG, generator), generator=generator)
    for step in range(11):
        targets.paint_if_due(step, _render)
    given = prior.given[-1][1]
    assert len(prior.given) == 2
    assert torch.allclose(given[..., 0, 0], torch.full((3, 3), 0.5))
    assert torch.allclose(given[..., 16, 16], torch.full((3, 3), 0.2), atol=1e-5)
