"""The base of every contract."""

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """An immutable model that refuses unknown keys and non-finite numbers' text forms in JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
