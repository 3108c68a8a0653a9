"""Networks that a run may name beside its priors: a CLIP, a depth estimator, a matting model. Whether a folder holds a sound one."""

from pathlib import Path
from typing import Literal

from dreampolish.priors.folders.source import PriorError, PriorSource, json_object
from schemas.config.run import PriorsConfig
from stages.runtime.files import project_file

Beside = Literal["clip", "depth", "matting"]


def check_beside(priors: PriorsConfig) -> None:
    """Raise PriorError in one line, which names the setting, where a network that a run names beside its priors cannot be opened."""
    for role in ("clip", "depth"):
        setting = getattr(priors, role)
        if setting is None:
            continue
        folder = project_file(setting.source)
        try:
            check_as(role, PriorSource(str(folder if folder.is_dir() else setting.source), setting.revision))
        except PriorError as error:
            raise PriorError(f"{error}; name another folder with --set priors.{role}.source=..., or leave it out") from None


def check_as(role: Beside, source: PriorSource) -> None:
    """Raise PriorError in one line where a folder is not what a role needs. Configs and headers are read, no weights."""
    match role:
        case "clip":
            from dreampolish.metrics.clip import check_clip  # transformers: seconds, which other runs need not wait

            check_clip(source)
        case "depth":
            from dreampolish.priors.estimators.depth import check_depth

            check_depth(source)
        case "matting":
            from dreampolish.scene.cutting.matting import Matting
            from dreampolish.scene.pictures import PictureError

            try:
                Matting(source.folder())
            except PictureError as error:
                raise PriorError(str(error)) from None


def role_beside(folder: Path) -> Beside | None:
    """What a folder without components would be: a network of transformers by its config; None: none of these."""
    if (folder / "unet").is_dir() or not (folder / "config.json").is_file():
        return None
    config = json_object(folder / "config.json")
    names = [str(each) for each in config.get("architectures") or ()]
    if config.get("model_type") == "clip":
        return "clip"
    return "depth" if any("DepthEstimation" in name for name in names) else None
