"""Reading artifacts' files, inside a stage or outside of any."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from schemas.artifacts import Artifact, FileRef
from stages.store import LocalStore


class ArtifactFiles(Protocol):
    """What a reader of artifacts is: a stage is one, and so is `StoredFiles`."""

    @property
    def device(self) -> torch.device:
        """Where tensors are wanted."""
        ...

    def locate(self, parent: Artifact, reference: FileRef) -> Path:
        """The path of an artifact's file."""
        ...


@dataclass(frozen=True)
class StoredFiles:
    """The files of a store's artifacts for a reader that is no stage; `LocalStore.open` has verified them."""

    store: LocalStore
    device: torch.device

    def locate(self, parent: Artifact, reference: FileRef) -> Path:
        """The path of an artifact's file."""
        return self.store.folder(parent.stage, parent.fingerprint) / reference.path
