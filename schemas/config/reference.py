"""Settings of the reference stage: a picture drawn from the prompt, or a user's own."""

from typing import Literal

from pydantic import Field

from schemas.base import Frozen


class ReferenceConfig(Frozen):
    """Stage 0: candidates from the text prior, or a user's picture."""

    size: int = Field(default=128, ge=16, le=1024)
    n_candidates: int = Field(default=20, ge=1, le=256)
    sampling_steps: int = Field(default=40, ge=1, le=1000)
    renewed: float = Field(default=1.0, ge=0.0, le=1.0)
    """DDIM's eta: share of the noise drawn anew at every sampling step, which mends a young prior's slips; 0: deterministic."""
    guidance_scale: float = Field(default=2.5, ge=0.0)
    symmetry_weight: float = Field(default=1.0, ge=0.0, le=100.0)
    """Of a candidate's mirror symmetry beside its alignment, when the best is chosen: most things are symmetric seen from the front,
    and a young prior's slips are not. [choice]"""
    negative_prompt: str = Field(default="", max_length=300)
    view_words: str = Field(default="straight front view", max_length=100)
    """What is added to the prompt: how the text prior was taught to call the view that the reference is taken to be. Models of others
    know "front view"."""
    elevation_deg: float = Field(default=10.0, gt=-90.0, lt=90.0)
    normal_steps: int = Field(default=1, ge=1, le=1000)
    background_tolerance: float = Field(default=0.1, ge=0.0, le=1.0)
    """Largest colour distance to the border colour that still counts as plain background. An object that differs from it by less than
    twice as much keeps a sharp outline."""
    framing: Literal["fit", "as_is"] = "fit"
    """A user's picture: "fit" moves and scales the object to where the priors expect it; "as_is" only resizes a square picture that
    is framed canonically already (FOV 20 at distance 3.8)."""
    unknown_words: Literal["refuse", "allow"] = "refuse"
    """What to do with a prompt of which the text prior has never seen a word; single unknown words are only said."""
