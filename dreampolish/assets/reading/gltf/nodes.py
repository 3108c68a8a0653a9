"""Where the meshes of a glTF scene stand: nodes, instances and skins in their rest pose (glTF 2.0, 3.5 and 3.7.3), in float64."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from dreampolish.assets.reading.gltf.data import GltfData
from dreampolish.assets.reading.scene import MeshError

MAX_NODES = 100_000
MAX_INSTANCES = 20_000
"""Places of meshes in one file, at most."""
INSTANCING = "EXT_mesh_gpu_instancing"


@dataclass(frozen=True)
class Placed:
    """A mesh at a place: the node's number, the mesh's number, file_from_mesh (4, 4), and the skin's number or None."""

    node: int
    mesh: int
    matrix: np.ndarray
    skin: int | None


def placed_meshes(data: GltfData) -> list[Placed]:
    """Every mesh that the scene shows, in the order of the scene graph. Without scenes, all root nodes are the scene."""
    world, order = _world_matrices(data)
    nodes = data.entries("nodes")
    found: list[Placed] = []
    for index in order:
        node = nodes[index]
        if "mesh" not in node:
            continue
        for matrix in _instances(data, node, world[index]):
            found.append(Placed(index, node["mesh"], matrix, node.get("skin")))
            if len(found) > MAX_INSTANCES:
                raise MeshError(f"{data.name} shows meshes at more than {MAX_INSTANCES:,} places; join or thin them out first")
    return found


def world_matrices(data: GltfData) -> dict[int, np.ndarray]:
    """file_from_node (4, 4) of every node of the scene."""
    return _world_matrices(data)[0]


def _world_matrices(data: GltfData) -> tuple[dict[int, np.ndarray], list[int]]:
    nodes = data.entries("nodes")
    if len(nodes) > MAX_NODES:
        raise MeshError(f"{data.name} has {len(nodes):,} nodes; at most {MAX_NODES:,} are read")
    world: dict[int, np.ndarray] = {}
    order: list[int] = []
    waiting = [(index, np.eye(4)) for index in reversed(_roots(data, nodes))]
    while waiting:
        index, parent = waiting.pop()
        if index in world:
            # A node with two parents, or a cycle: its first place counts.
            continue
        node = data.entry("nodes", index)
        if node.get("extensions", {}).get("KHR_node_visibility", {}).get("visible") is False:
            continue
        world[index] = parent @ _local_matrix(data, node)
        order.append(index)
        waiting += [(child, world[index]) for child in reversed(node.get("children", []))]
    return world, order


def _roots(data: GltfData, nodes: list[dict[str, Any]]) -> list[int]:
    if data.document.get("scenes"):
        return list(data.entry("scenes", data.document.get("scene", 0)).get("nodes", []))
    children = {child for node in nodes for child in node.get("children", [])}
    return [index for index in range(len(nodes)) if index not in children]


def _local_matrix(data: GltfData, node: dict[str, Any]) -> np.ndarray:
    if "matrix" in node:
        matrix = np.array(node["matrix"], np.float64)
        if matrix.shape != (16,):
            raise MeshError(f"{data.name} has a node whose matrix is no 4x4 matrix")
        return matrix.reshape(4, 4).T
    return matrix_of(node.get("translation", (0, 0, 0)), node.get("rotation", (0, 0, 0, 1)), node.get("scale", (1, 1, 1)))


def matrix_of(translation: Any, rotation: Any, scale: Any) -> np.ndarray:
    """The matrix T R S of a translation, a quaternion (x, y, z, w) and a scale."""
    x, y, z, w = np.asarray(rotation, np.float64) / max(float(np.linalg.norm(rotation)), 1e-300)
    turned = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = turned * np.asarray(scale, np.float64), np.asarray(translation, np.float64)
    return matrix


def _instances(data: GltfData, node: dict[str, Any], world: np.ndarray) -> Iterator[np.ndarray]:
    """The node's own place, or those of EXT_mesh_gpu_instancing."""
    named = node.get("extensions", {}).get(INSTANCING, {}).get("attributes", {})
    given = {key: data.numbers(named[key]) for key in ("TRANSLATION", "ROTATION", "SCALE") if key in named}
    if not given:
        yield world
        return
    count = min(len(values) for values in given.values())
    if count > MAX_INSTANCES:
        raise MeshError(f"{data.name} shows a mesh at {count:,} places; at most {MAX_INSTANCES:,} are read")
    for index in range(count):
        row = {key: values[index] for key, values in given.items()}
        yield world @ matrix_of(
            row.get("TRANSLATION", (0, 0, 0)), row.get("ROTATION", (0, 0, 0, 1)), row.get("SCALE", (1, 1, 1))
        )


def skin_matrices(data: GltfData, skin: int, world: dict[int, np.ndarray]) -> np.ndarray:
    """file_from_mesh (J, 4, 4) of every joint of a skin as the nodes stand in the file: the pose without animation."""
    entry = data.entry("skins", skin)
    joints = [world.get(joint, np.eye(4)) for joint in entry["joints"]]
    if "inverseBindMatrices" not in entry:
        return np.stack(joints)
    bound = data.numbers(entry["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1)
    if len(bound) < len(joints):
        raise MeshError(f"{data.name} has a skin of {len(joints)} joints with {len(bound)} matrices")
    return np.stack([joint @ matrix for joint, matrix in zip(joints, bound[: len(joints)], strict=True)])


def skinned(matrices: np.ndarray, joints: np.ndarray, weights: np.ndarray, name: str) -> np.ndarray:
    """file_from_mesh (V, 4, 4) of every vertex: the mean of its joints' matrices by weight.

    joints: (V, 4 n) numbers of joints; weights: (V, 4 n). Vertices without weight follow the first joint.
    """
    if joints.max(initial=0) >= len(matrices):
        raise MeshError(f"{name} has a vertex bound to joint {int(joints.max())} of {len(matrices)}")
    total = weights.sum(axis=1, keepdims=True)
    first = np.zeros_like(weights)
    first[:, 0] = 1.0
    shares = np.where(total > 1e-12, weights / np.maximum(total, 1e-12), first)
    return sum(shares[:, [k], None] * matrices[joints[:, k]] for k in range(joints.shape[1]))
