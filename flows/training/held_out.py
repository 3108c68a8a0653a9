"""Held-out pairs for the view prior's figures: every object's most frontal view as reference, other views as targets.

The light is the studio's (dreampolish/scene/lighting.py), as in the references that the text prior draws for the pipeline.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dreampolish.data.batches import BRIGHTEST, RenderedViews
from dreampolish.scene.cameras import pose_condition
from dreampolish.scene.lighting import studio_camera_lighting
from dreampolish.scene.shading import on_white, shade
from dreampolish.training.evaluation import ViewTrial

LEAST_TURN_DEG = 30.0
"""How far a target's azimuth is from its reference's at least: nearer views are as good as copies."""
AZIMUTH_WINDOW_DEG = 30.0
"""How far a training view's azimuth may be from the target's to enter the class's mean picture."""


def studio_pictures(views: RenderedViews, rows: np.ndarray) -> Float[Tensor, "n 3 s s"]:
    """Stored views in their own colours, in the studio's light."""
    found = views.load(rows)
    light = studio_camera_lighting(found.cameras, torch.Generator().manual_seed(0)).to(views.device)
    return on_white(found.albedo.clamp(0, BRIGHTEST) * shade(found.normals, light), found.coverage)


def held_out_trial(held_out: RenderedViews, train: RenderedViews, pairs: int) -> ViewTrial:
    """`pairs` pairs over as many held-out objects as there are, in turn; targets walk through each object's views."""
    references, targets = [], []
    for turn in range(-(-pairs // len(held_out.entries))):
        for place in range(len(held_out.entries)):
            mine = _narrow(held_out, place)
            reference = mine[np.argmin(np.abs(_folded(held_out.azimuth_deg[mine])))]
            turned = np.abs(_folded(held_out.azimuth_deg[mine] - held_out.azimuth_deg[reference]))
            others = mine[turned >= LEAST_TURN_DEG]
            references.append(reference)
            targets.append(others[(place + turn) % len(others)])
    # A fixed stride spreads few pairs over the whole list of objects.
    order = np.argsort(np.arange(len(targets)) * 37 % 101, kind="stable")[:pairs]
    chosen, aims = np.array(references)[order], np.array(targets)[order]
    change = torch.from_numpy(held_out.azimuth_deg[aims] - held_out.azimuth_deg[chosen])
    rise = torch.from_numpy(held_out.elevation_deg[aims] - held_out.elevation_deg[chosen])
    return ViewTrial(
        studio_pictures(held_out, chosen),
        studio_pictures(held_out, aims),
        pose_condition(change, rise, reference_elevation_deg=0.0),
        torch.cat([_class_mean(held_out, train, int(aim)) for aim in aims]),
    )


def _folded(azimuth_deg: np.ndarray) -> np.ndarray:
    return (azimuth_deg + 180) % 360 - 180


def _narrow(views: RenderedViews, place: int) -> np.ndarray:
    """An object's views at FOV 20."""
    return np.flatnonzero((views.view_objects == place) & np.isclose(views.fov_deg, 20, atol=0.01))


def _class_mean(held_out: RenderedViews, train: RenderedViews, target: int) -> Float[Tensor, "1 3 s s"]:
    """The mean of training pictures of the target's category seen from about the same azimuth."""
    category = held_out.entries[held_out.view_objects[target]].category
    same = np.array([entry.category == category for entry in train.entries])
    near = (np.abs(_folded(train.azimuth_deg - held_out.azimuth_deg[target])) < AZIMUTH_WINDOW_DEG) & (train.stretch == 0)
    rows = np.flatnonzero(near & np.isclose(train.fov_deg, 20, atol=0.01) & same[train.view_objects])
    rows = rows if len(rows) else np.flatnonzero(near)
    return studio_pictures(train, rows[:64]).mean(dim=0, keepdim=True)
