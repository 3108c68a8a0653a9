"""Settings of the reference stage: a picture drawn from the prompt, or a user's own."""

from typing import Literal

from pydantic import Field

from schemas.base import Frozen


class CutoutConfig(Frozen):
    """How the object is cut from a plain background (dreampolish/scene/cutout.py)."""

    largest_stray_border: float = Field(default=0.2, ge=0.0, le=1.0)
    """Share of the border's pixels that may differ from its colour, or the background is not plain."""
    rim_depth: int = Field(default=3, ge=0, le=64)
    """Pixels from the outside that may be mixed with the background."""
    rim_reach: int = Field(default=2, ge=1, le=64)
    """Pixels around a rim's pixel in which the object's own colour is looked for."""
    rim_opaque: float = Field(default=0.85, ge=0.0, le=1.0)
    """Coverage (0..1) from which a rim's pixel stays as it is."""
    rim_contrast: float = Field(default=2.0, ge=0.0, le=100.0)
    """Multiples of `background_tolerance` by which a rim's own colour must differ from the background's."""
    rim_rise: float = Field(default=0.1, ge=0.0, le=1.0)
    """Least rise of coverage (0..1) towards the inside for a pixel to be a mixture."""


class PosesFitConfig(Frozen):
    """How poses and frames of several pictures are fitted to their outlines (dreampolish/scene/silhouettes.py)."""

    steps: int = Field(default=60, ge=0, le=10_000)
    """Adam's steps; 0: frames are those of the objects' boxes."""
    rate: float = Field(default=0.5, gt=0.0)
    """Adam's learning rate, degrees and pixels of a picture of 128 a side."""
    pixels: int = Field(default=100, ge=8, le=10_000)
    """Pixels of each outline that are asked."""
    most_turn_deg: float = Field(default=15.0, gt=0.0, le=90.0)
    """Most by which a refined angle differs from the given one, degrees."""
    most_move: float = Field(default=0.1, gt=0.0, le=0.5)
    """Most by which a frame moves, as a share of its side; its scale changes by at most twice that."""
    pull: float = Field(default=0.0005, ge=0.0)
    """Weight of the sum of squared changes of a picture, which leaves alone what no outline decides."""


class PosesConfig(Frozen):
    """Several pictures of one object: how their outlines are compared."""

    refine: bool = False
    """Whether given azimuths and elevations are refined so that the outlines agree better."""
    tolerance: float = Field(default=1.5, ge=0.0, le=64.0)
    """Pixels, of a picture of at most 128 a side, by which an outline may be off before it contradicts the others."""
    most_contradiction: float = Field(default=0.05, ge=0.0, le=1.0)
    """Share of an outline that no shape explains, 0..1, above which a note says so."""
    fit: PosesFitConfig = PosesFitConfig()
    """How poses and frames are fitted."""


class ReferenceConfig(Frozen):
    """Candidates from the text prior, or a user's picture."""

    size: int = Field(default=128, ge=16, le=1024)
    """Side of the reference picture, pixels."""
    n_candidates: int = Field(default=20, ge=1, le=256)
    """Pictures that the text prior draws; the best one becomes the reference."""
    sampling_steps: int = Field(default=40, ge=1, le=1000)
    """DDIM steps of each candidate."""
    renewed: float = Field(default=1.0, ge=0.0, le=1.0)
    """DDIM's eta: share of the noise drawn anew at each sampling step; 0: deterministic."""
    guidance_scale: float = Field(default=2.5, ge=0.0)
    """Classifier-free guidance scale of the candidates."""
    symmetry_weight: float = Field(default=1.0, ge=0.0, le=100.0)
    """Weight of a candidate's mirror symmetry (0..1) beside its alignment with the prompt, when the best one is chosen."""
    negative_prompt: str = Field(default="", max_length=300)
    """What the candidates should not show."""
    chosen_by: Literal["judge", "clip_if_named"] = "judge"
    """What compares the candidates with the prompt: the embedded judge, or the CLIP of `priors.clip` where one is named."""
    studio_words: str = Field(default="", max_length=200)
    """Words added to the prompt, behind the view's, for a background that can be cut off."""
    view_words: str = Field(default="straight front view", max_length=100)
    """Words added to the prompt for the view of the reference, as the text prior knows them."""
    elevation_deg: float = Field(default=10.0, gt=-90.0, lt=90.0)
    """Elevation that the reference is taken to be seen from, degrees."""
    elevation_from: Literal["setting", "normals"] = "setting"
    """"normals": estimated from one picture's normals, which need a better prior than the embedded one; "setting": `elevation_deg`."""
    normal_steps: int = Field(default=1, ge=1, le=1000)
    """Sampling steps of the normal prior on the reference."""
    background_tolerance: float = Field(default=0.1, ge=0.0, le=1.0)
    """Largest distance per channel from the border's colour that still counts as background, 0..1."""
    cutout: CutoutConfig = CutoutConfig()
    """How the object is cut from its background."""
    framing: Literal["fit", "as_is"] = "fit"
    """A user's picture: "fit" moves and scales the object to the canonical frame; "as_is" only resizes a square picture."""
    poses: PosesConfig = PosesConfig()
    """Several pictures: their poses and frames."""
    drawn_over: float = Field(default=0.9, ge=0.0, le=1.0)
    """Noise on the front of a user's own mesh before the reference is drawn over it, fraction of the timesteps; 0: none is drawn."""
    least_outline: float = Field(default=0.8, ge=0.0, le=1.0)
    """Overlap (0..1) of the outlines of a user's picture and mesh below which a note says that they differ."""
    drawn_framing: Literal["keep_scale", "fit"] = "keep_scale"
    """A drawn picture: "keep_scale" only centres the object, whose scale the prior knows; "fit" also scales it to the canonical frame."""
    unknown_words: Literal["refuse", "allow"] = "refuse"
    """What to do with a prompt of which the text prior knows no word; single unknown words only give a note."""

    @property
    def uses_clip(self) -> bool:
        """Whether the CLIP that the run names, if it names one, is a part of the result."""
        return self.chosen_by == "clip_if_named"
