"""The stored views of one split (renders.py): which there are, from where, and their buffers on the CPU or a GPU."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dreampolish.data.library import entry_from_fields
from dreampolish.data.split import read_split
from dreampolish.scene.cameras import Cameras, orbit_cameras, rays_from_cameras


@dataclass(frozen=True)
class ViewBuffers:
    """n stored views: albedo (n, 3, S, S), normals (n, 3, S, S) unit or 0, coverage and paint (n, 1, S, S), cameras of n."""

    albedo: Float[Tensor, "n 3 s s"]
    normals: Float[Tensor, "n 3 s s"]
    coverage: Float[Tensor, "n 1 s s"]
    paint: Float[Tensor, "n 1 s s"]
    cameras: Cameras


class StoredViews:
    """The views of one split, over every round that was complete when `refresh` was called last; to be called before anything else.

    Stretched objects (renders.py) are for training: other splits show the objects as they are.
    """

    def __init__(self, renders: Path, split_file: Path, split: str, device: torch.device | None) -> None:
        """renders: the folder that renders.py wrote. device: where buffers are given; on a GPU the split's lie in its memory (None: the
        CPU, where they stay in the files)."""
        self._renders, self._split, self.device = renders, split, device or torch.device("cpu")
        self._folders: list[Path] = []
        self._place = np.empty((0, 2), dtype=np.int64)
        wanted = set(read_split(split_file)[split])
        described = [entry_from_fields(fields) for fields in json.loads((renders / "objects.json").read_text())]
        self.entries = [entry for entry in described if entry.identifier in wanted]
        self._number = {entry.identifier: place for place, entry in enumerate(self.entries)}

    def refresh(self) -> int:
        """Look for rounds that have been completed since; answers the number of views."""
        folders = sorted(path.parent for path in self._renders.glob("round_*/index.json"))
        if not folders:
            raise FileNotFoundError(f"no complete round in {self._renders}: run python -m dreampolish.data.renders")
        indices = [json.loads((folder / "index.json").read_text()) for folder in folders]
        wanted = [place for place, index in enumerate(indices) if self._split == "train" or "shape" not in index]
        folders, indices = [folders[place] for place in wanted], [indices[place] for place in wanted]
        if folders == self._folders:
            return len(self._place)
        self._folders = folders
        self._buffers = [np.load(folder / "buffers.npy", mmap_mode="r", allow_pickle=False) for folder in folders]
        self._depths = [np.load(folder / "depth.npy", mmap_mode="r", allow_pickle=False) for folder in folders]
        self.size = int(self._buffers[0].shape[-1])
        rows = [
            (shard, row, self._number[name])
            for shard, index in enumerate(indices)
            for row, name in enumerate(index["objects"])
            if name in self._number
        ]
        self._place = np.array([row[:2] for row in rows])
        self.view_objects = np.array([row[2] for row in rows])
        # Rounds without these words show the objects as they are.
        shapes = [indices[shard].get("shape", 0) for shard, _, _ in rows]
        self.stretch = np.array(
            [indices[shard]["stretch"][row] if "stretch" in indices[shard] else 0.0 for shard, row, _ in rows]
        )
        _, self._view_shapes = np.unique(np.stack([self.view_objects, shapes], axis=1), axis=0, return_inverse=True)
        self._on_device: tuple[Tensor, Tensor] | None = None  # the old copy goes before the new one is made
        if self.device.type != "cpu":
            self._on_device = self._copy_to_device()
        angles = ("azimuth_deg", "elevation_deg", "fov_deg")
        self.azimuth_deg, self.elevation_deg, self.fov_deg = (
            np.array([indices[shard][key][row] for shard, row in self._place], dtype=np.float32) for key in angles
        )
        return len(rows)

    def _copy_to_device(self) -> tuple[Tensor, Tensor]:
        """Buffers (N, 8, S, S) uint8 and depths (N, S, S) float16 of this split's views, in their order."""
        buffers = torch.empty(len(self._place), 8, self.size, self.size, dtype=torch.uint8, device=self.device)
        depths = torch.empty(len(self._place), self.size, self.size, dtype=torch.float16, device=self.device)
        for shard in range(len(self._buffers)):
            mine = np.flatnonzero(self._place[:, 0] == shard)
            for some in np.array_split(mine, max(len(mine) // 2000, 1)):
                rows = self._place[some, 1]
                buffers[some] = torch.from_numpy(self._buffers[shard][rows]).to(self.device)
                depths[some] = torch.from_numpy(self._depths[shard][rows]).to(self.device)
        return buffers, depths

    def load(self, views: np.ndarray) -> ViewBuffers:
        """The stored buffers of views (n,), as floats."""
        if self._on_device is None:
            raw = torch.from_numpy(np.stack([self._buffers[shard][row] for shard, row in self._place[views]]))
        else:
            raw = self._on_device[0][torch.from_numpy(views).to(self.device)]
        floats, normals = raw.float(), raw[:, 3:6].view(torch.int8).float() / 127
        cameras = orbit_cameras(
            torch.from_numpy(self.azimuth_deg[views]),
            torch.from_numpy(self.elevation_deg[views]),
            torch.from_numpy(self.fov_deg[views]),
            self.size,
        )
        return ViewBuffers(
            albedo=floats[:, :3] / 255,
            normals=normals,
            coverage=floats[:, 6:7] / 255,
            paint=floats[:, 7:8] / 255,
            cameras=cameras,
        )

    def positions_world(self, views: np.ndarray, cameras: Cameras) -> Float[Tensor, "n 3 s s"]:
        """Surface points of views that `cameras` saw; meaningless on the background."""
        if self._on_device is None:
            relative = torch.from_numpy(np.stack([self._depths[shard][row] for shard, row in self._place[views]]))
        else:
            relative = self._on_device[1][torch.from_numpy(views).to(self.device)]
        cameras = cameras.to(self.device)
        origins, directions = rays_from_cameras(cameras)
        forward = -cameras.world_from_camera[:, :3, 2]
        distance = cameras.world_from_camera[:, :3, 3].norm(dim=1)
        depth = relative.float() + distance[:, None, None]
        along = torch.einsum("bhwc,bc->bhw", directions, forward)
        return (origins + directions * (depth / along)[..., None]).permute(0, 3, 1, 2)
