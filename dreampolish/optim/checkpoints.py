"""Atomic checkpoints of nested state: tensors in safetensors, structure and scalars in JSON, a manifest with the hash last.

A checkpoint is two files: `step-NNNNNNNN.safetensors` and `step-NNNNNNNN.json`. The JSON is written last and names the
SHA-256 of the other and of itself, so a half-written or damaged checkpoint is never taken for a whole one (safetensors alone does
not see flipped bits). JSONs of before they named their own hash are taken without it.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from dreampolish.optim.atomic_files import write_atomically


class Checkpoints:
    """The newest `keep` checkpoints of one computation in one folder.

    interval: steps between two checkpoints, at least 1. keep: how many stay on disk, at least 1.
    """

    def __init__(self, folder: Path, *, interval: int, keep: int) -> None:
        if interval < 1 or keep < 1:
            raise ValueError(f"interval {interval} and keep {keep} must be at least 1")
        self.folder, self.interval, self.keep = folder, interval, keep

    def due(self, step: int) -> bool:
        """Whether a checkpoint belongs after `step` finished steps."""
        return step % self.interval == 0

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Write the state after `step` finished steps; state: nested dicts and lists of tensors and JSON scalars."""
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors: dict[str, Tensor] = {}
        structure = _pack(state, tensors)
        payload = save(tensors)
        stem = self.folder / f"step-{step:08d}"
        manifest = {"step": step, "sha256": hashlib.sha256(payload).hexdigest(), "structure": structure}
        write_atomically(stem.with_suffix(".safetensors"), payload)
        write_atomically(stem.with_suffix(".json"), json.dumps({**manifest, "self": _self_hash(manifest)}).encode())
        self._tidy()

    def latest(self) -> tuple[int, dict[str, Any]] | None:
        """The newest whole checkpoint as (finished steps, state), or None; damaged ones are passed over."""
        for manifest_path in self._manifests():
            try:
                manifest = json.loads(manifest_path.read_bytes())
                payload = manifest_path.with_suffix(".safetensors").read_bytes()
            except (OSError, ValueError):
                continue
            if _is_whole(manifest, payload):
                return int(manifest["step"]), _unpack(manifest["structure"], load(payload))
        return None

    def clear(self) -> None:
        """Remove every checkpoint and the folder, once the result they led to is safe elsewhere. What cannot be removed is left."""
        # The JSONs go first: without its JSON a checkpoint is none, wherever this is cut off.
        for path in self._manifests():
            path.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _tidy(self) -> None:
        """Remove all but the newest checkpoints, and what kills inside a write have left."""
        manifests = self._manifests()
        for old in manifests[self.keep :]:
            old.unlink(missing_ok=True)
        kept = {path.stem for path in manifests[: self.keep]}
        for path in self.folder.glob("step-*"):
            if path.name.endswith(".partial") or path.stem not in kept:
                path.unlink(missing_ok=True)
        for path in self.folder.glob(".step-*.partial"):
            path.unlink(missing_ok=True)

    def _manifests(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.json"), reverse=True) if self.folder.exists() else []


def _self_hash(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _is_whole(manifest: Any, payload: bytes) -> bool:
    if not isinstance(manifest, dict):
        return False
    named = manifest.pop("self", None)
    if named is not None and named != _self_hash(manifest):
        return False
    return hashlib.sha256(payload).hexdigest() == manifest.get("sha256")


def _pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """JSON form of a nested state; tensors move into `tensors` under running names."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        # A clone each: safetensors refuses tensors that share memory.
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"map": [[key, _pack(item, tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return {"list": [_pack(item, tensors) for item in value]}
    if value is None or isinstance(value, bool | int | float | str):
        return {"value": value}
    raise TypeError(f"a checkpoint holds tensors, dicts, lists and JSON scalars, not {type(value).__name__}")


def _unpack(packed: dict[str, Any], tensors: Mapping[str, Tensor]) -> Any:
    if "tensor" in packed:
        return tensors[packed["tensor"]]
    if "map" in packed:
        return {key: _unpack(item, tensors) for key, item in packed["map"]}
    if "list" in packed:
        return [_unpack(item, tensors) for item in packed["list"]]
    return packed["value"]
