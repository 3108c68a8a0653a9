"""How a stage cuts out pictures: those that a prior drew on paper, and a user's own."""

from collections.abc import Callable
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from dreampolish.scene.cutout import CutoutSizes, as_framed, check_whole, cut_from_plain_background, recentre
from dreampolish.scene.cutting.matting import Matting
from dreampolish.scene.cutting.opaque import Cutout
from dreampolish.scene.cutting.users import Opaque, by_matting, cut_out, from_background
from dreampolish.scene.pictures import PictureError, read_picture
from schemas.config.reference import ReferenceConfig
from stages.runtime.context import RunContext
from stages.runtime.errors import StageError

PICTURE_REMEDY = "any object on a transparent or plain background will do"

Cut = Callable[[Tensor], Tensor]
"""A picture (H, W, 3) to RGBA; PictureError where no object can be cut out."""


def drawn_cutter(run: RunContext, config: ReferenceConfig) -> Cut:
    """By the matting model that the run names, else from a plain background. StageError where the model cannot be opened."""
    if run.priors.matting is not None:
        try:
            return Matting(Path(run.prior_folder(run.priors.matting.source))).cut
        except PictureError as error:
            raise StageError(str(error), None, "or leave priors.matting out") from error
    sizes = CutoutSizes(**config.cutout.model_dump())
    return lambda rgb: cut_from_plain_background(rgb, config.background_tolerance, sizes)


def users_cutter(run: RunContext, config: ReferenceConfig) -> Opaque:
    """For a user's opaque picture: by the matting model that the run names, else by what its border shows."""
    if run.priors.matting is not None:
        return by_matting(drawn_cutter(run, config))
    return from_background(config.background_tolerance, CutoutSizes(**config.cutout.model_dump()), config.size)


def users_picture(image: Path, config: ReferenceConfig, cut: Opaque) -> Cutout:
    """Cut out, and recentred and scaled unless the settings leave it as it is framed."""
    found = cut_out_file(image, cut, whole=False)
    rgba = (
        framed_as_is(found.rgba, config) if config.framing == "as_is" else recentre(found.rgba, config.size, keep_scale=False)
    )
    return Cutout(rgba, found.notes)


def cut_out_file(image: Path, cut: Opaque, *, whole: bool) -> Cutout:
    """A user's picture cut out, at its own size; where its scale counts, `whole`, one that is cut off is refused."""
    try:
        found = cut_out(read_picture(image), cut)
        if whole:
            check_whole(found.rgba[..., 3])
    except PictureError as error:
        raise StageError(str(error), None, PICTURE_REMEDY) from error
    return found


def framed_as_is(rgba: Float[Tensor, "h w 4"], config: ReferenceConfig) -> Float[Tensor, "s s 4"]:
    """At the reference's size, neither moved nor scaled. StageError for one that is not square."""
    try:
        return as_framed(rgba, config.size)
    except PictureError as error:
        raise StageError(str(error), None, PICTURE_REMEDY) from error
