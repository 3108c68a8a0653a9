"""A whole run as small as it gets: real stages and real prior classes with tiny random weights, a disc as the user's picture."""

from pathlib import Path

import torch
from PIL import Image, ImageDraw

from dreampolish.priors.tiny import CHANNELS, tiny_space, tiny_unet, tiny_view_prior, write_text_encoder
from dreampolish.training.diffusion import build_schedule
from dreampolish.training.folders import write_prior
from flows.runs.create import new_run
from schemas.runs import RunRecord

PROMPT = "a red chair"
SETTINGS = (
    "device=cpu",
    "threads=1",
    "checkpoint_interval=2",
    "reference.size=32",
    "nerf.steps=4",
    "neus.steps=4",
    "neus.conversion_steps=4",
    "dmtet.steps=4",
    "dmtet.tet_resolution=12",
    "dmtet.color_fit_steps=2",
    "polish.steps=4",
    "polish.color_fit_steps=2",
    "texture.steps=4",
    "export.triangle_budget=200",
    "export.texture_size=128",
    "export.turntable_views=2",
    "export.turntable_size=16",
    *(f"{name}.preview.size=16" for name in ("nerf", "neus", "dmtet", "polish", "texture", "export")),
    *(f"{name}.preview.n_views=2" for name in ("nerf", "neus", "dmtet", "polish", "texture", "export")),
    *(f"{name}.preview.interval=2" for name in ("nerf", "neus", "dmtet", "polish", "texture")),
)
"""On top of the preset `smoke`. Four steps and a checkpoint every second one: one in the middle, one at the end."""


def write_priors(home: Path) -> tuple[str, ...]:
    """Tiny text, view and normal priors under `home`; the settings that name them. The judge stays the embedded one."""
    write_text_encoder(home / "words")
    write_prior(home / "space", {"vae": tiny_space().autoencoder}, {})
    references = {"vae": "../space/vae", "text_encoder": "../words", "tokenizer": "../words"}
    view, schedule = tiny_view_prior(), build_schedule()
    write_prior(home / "text", {"unet": tiny_unet(CHANNELS, False), "scheduler": schedule}, references)
    write_prior(home / "normals", {"unet": tiny_unet(2 * CHANNELS, False), "scheduler": schedule}, references)
    components = {"unet": view.unet, "cc_projection": view.projection, "scheduler": schedule}
    write_prior(home / "view", components, {"vae": "../space/vae"})
    return tuple(f"priors.{name}.source={home / name}" for name in ("text", "view", "normals"))


def write_picture(path: Path) -> Path:
    """A shaded disc on a transparent ground."""
    picture = Image.new("RGBA", (48, 48), (0, 0, 0, 0))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((8, 8, 40, 40), fill=(200, 40, 30, 255))
    draw.ellipse((16, 14, 28, 26), fill=(230, 120, 90, 255))
    picture.save(path)
    return path


def tiny_run(store: Path, priors: tuple[str, ...], picture: Path) -> RunRecord:
    """The record of a new tiny run in a store; every run made with the same arguments has the same fingerprints."""
    torch.set_num_threads(1)
    return new_run(store, PROMPT, "smoke", [*SETTINGS, *priors], picture)
