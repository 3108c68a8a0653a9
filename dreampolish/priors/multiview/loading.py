"""Opening a prior that paints sets of views, by the pipeline that its folder names."""

from collections.abc import Callable
from typing import Any

from dreampolish.priors.folders.source import PriorError, PriorSource
from dreampolish.priors.multiview.imagedream import load_imagedream
from dreampolish.priors.multiview.zero123plus import load_zero123plus

LOADERS: dict[str, Callable[[PriorSource], Any]] = {
    "Zero123PlusPipeline": load_zero123plus,
    "MVDreamPipeline": load_imagedream,
}
"""By `_class_name` of the folder's model_index.json."""


def load_set_prior(source: PriorSource) -> Any:
    """A protocols.SetPrior. PriorError in one line for another kind of folder."""
    name = str(source.index().get("_class_name", ""))
    if name not in LOADERS:
        raise PriorError(
            f"{source.location} is {name or 'a folder without model_index.json'}: sets of views are painted by Zero123++ "
            "(Zero123PlusPipeline) and ImageDream (MVDreamPipeline)"
        )
    return LOADERS[name](source)
