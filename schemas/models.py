"""The list of models that `dreampolish priors fetch` knows: configs/models.yaml."""

from typing import Literal

from pydantic import Field

from schemas.base import Frozen


class ModelEntry(Frozen):
    """One repository of a model hub."""

    id: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")
    """owner/name."""
    revision: str | None = Field(pattern=r"^[0-9a-f]{40}$")
    """Commit; null: the newest when it is first fetched, which is then noted in the folder."""
    folder: str
    """Where it goes, from the project; presets name it so."""
    role: Literal["text", "view", "views", "normals"]
    """What it is used as."""
    layout: str
    """The kind of folder, in words."""
    licence: str
    """As its card names it."""
    size_gb: float = Field(gt=0)
    """About what is downloaded, thousand millions of bytes."""
    note: str = ""
    """What else to know."""


class ModelList(Frozen):
    """All of them."""

    models: tuple[ModelEntry, ...]
