"""Picture metrics against scikit-image, closed forms and finite differences."""

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from dreampolish.metrics.pictures import mask_iou, mean_normal_angle, psnr, ssim


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    first = torch.rand(2, 24, 31, 3, generator=generator)
    return first, (first + 0.2 * torch.randn(first.shape, generator=generator)).clamp(0, 1)


def test_psnr_equals_scikit_image_and_a_constant_error(pair: tuple[Tensor, Tensor]) -> None:
    first, second = pair
    expected = [peak_signal_noise_ratio(a.numpy(), b.numpy(), data_range=1) for a, b in zip(first, second, strict=True)]
    assert psnr(first, second).tolist() == pytest.approx(expected, abs=1e-4)
    assert psnr(torch.zeros(1, 4, 4, 3), torch.full((1, 4, 4, 3), 0.1)).item() == pytest.approx(20, abs=1e-4)
    assert torch.isinf(psnr(first, first)).all()


def test_ssim_equals_scikit_image(pair: tuple[Tensor, Tensor]) -> None:
    first, second = pair
    settings = {"data_range": 1, "channel_axis": -1, "gaussian_weights": True, "use_sample_covariance": False}
    pairs = zip(first.double().numpy(), second.double().numpy(), strict=True)
    expected = [structural_similarity(a, b, **settings) for a, b in pairs]
    assert np.ptp(expected) > 1e-4
    assert ssim(first, second).tolist() == pytest.approx(expected, abs=1e-5)
    assert ssim(first, first).tolist() == pytest.approx([1, 1], abs=1e-5)


def test_ssim_has_the_finite_differences_gradient_and_refuses_small_pictures(pair: tuple[Tensor, Tensor]) -> None:
    first, second = pair[0][:1, :12, :12].double(), pair[1][:1, :12, :12].double()
    assert torch.autograd.gradcheck(lambda x: ssim(x, second), first.requires_grad_())
    with pytest.raises(ValueError, match="11 pixels"):
        ssim(second[:, :10], second[:, :10])


def test_iou_of_shifted_squares() -> None:
    first, second = torch.zeros(3, 16, 16), torch.zeros(3, 16, 16)
    first[0, 2:10, 2:10] = 1
    second[0, 2:10, 6:14] = 1
    first[1, :4], second[1, 8:] = 1, 1
    assert mask_iou(first, second).tolist() == pytest.approx([32 / 96, 0, 1])


def test_normal_angle_of_turned_normals() -> None:
    angle = torch.tensor([0.001, 30.0, 179.0])
    first = torch.tensor([0.0, 0, 1]).expand(3, 5, 5, 3)
    turned = torch.stack([torch.deg2rad(angle).sin(), torch.zeros(3), torch.deg2rad(angle).cos()], dim=-1)
    second = turned[:, None, None].expand(3, 5, 5, 3)
    mask = torch.zeros(3, 5, 5)
    mask[:, 1:3] = 0.5
    assert mean_normal_angle(first, second, mask).tolist() == pytest.approx(angle.tolist(), rel=1e-4)
