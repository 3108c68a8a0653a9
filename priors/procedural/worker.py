"""Makes objects with Infinigen inside Blender's own environment; engine.py starts it.

It reads jobs from standard input, one JSON object a line, and answers each with one JSON line on standard output; what Blender prints
goes to standard error. A job: {"generator": class, "module": where it lies under infinigen.assets.objects, "seed", "arguments": of the
class, "spawn": of its spawn_asset, "triangles": at most, "path": the file to write}. An answer: {"generator", "seed", "ok", "seconds",
"triangles", "materials": {name: share of the area}} or {"generator", "seed", "ok": false, "reason"}.

The file (numpy .npz): vertices (V, 3) int16, times size / 65534 metres, z up, centred on the box; size: diagonal of the box, metres;
faces (F, 3); colors (F, 3, 3) uint8, sRGB base colour at each corner of each face.
"""

import importlib
import json
import os
import resource
import sys
import time
import traceback
import types
from collections import Counter

MEMORY = 6 << 30
"""Bytes of address space: a tree with every leaf in full would take all of the machine's; the worker dies instead."""

answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)  # Blender prints to standard output
resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # Blender takes as many threads as it sees cores

import bpy  # noqa: E402

# isort: split
import bmesh  # noqa: E402  (exists once Blender is loaded)
import numpy as np  # noqa: E402

for absent in ("OpenEXR", "Imath", "submitit", "coacd", "fcl"):
    sys.modules.setdefault(absent, types.ModuleType(absent))

from infinigen.core.util import blender as butil  # noqa: E402
from infinigen.core.util.math import FixedSeed  # noqa: E402
from mends import mend_creatures, shorten_cloth  # noqa: E402

LARGEST_INPUT = 3_000_000
"""Triangles above which an object is refused: reducing it would take minutes and gigabytes."""
SPIKES = 10
"""How many times farther out than nine tenths of the vertices one may lie: some modifiers throw vertices kilometres away."""
COLOR_INPUTS = {
    "BSDF_PRINCIPLED": "Base Color",
    "BSDF_DIFFUSE": "Color",
    "BSDF_TRANSLUCENT": "Color",
    "BSDF_GLOSSY": "Color",
    "BSDF_ANISOTROPIC": "Color",
    "BSDF_GLASS": "Color",
    "BSDF_REFRACTION": "Color",
    "BSDF_SHEEN": "Color",
    "BSDF_VELVET": "Color",
    "BSDF_TOON": "Color",
    "SUBSURFACE_SCATTERING": "Color",
}
"""Shader nodes and the input that holds their colour."""


def spawn(job):
    """The object of one job in an empty scene, materials assigned."""
    butil.clear_scene()
    bpy.ops.outliner.orphans_purge(do_recursive=True)
    factory_class = getattr(importlib.import_module("infinigen.assets.objects." + job["module"]), job["generator"])
    with FixedSeed(job["seed"]):
        factory = factory_class(job["seed"], **job["arguments"])
        made = factory.spawn_asset(i=0, **job["spawn"])
        try:
            factory.finalize_assets([made])
        except Exception as problem:  # some generators finalise a single object, some nothing
            print("finalize:", type(problem).__name__, problem, file=sys.stderr)  # noqa: T201
            if "list" in str(problem):
                factory.finalize_assets(made)
    return made


def parts_of(made):
    """The visible meshes that hang together with the object; where it has none itself, all visible ones of the scene."""
    family = [made, *made.children_recursive]
    for candidates in (family, list(bpy.context.scene.objects)):
        found = [part for part in candidates if part.type == "MESH" and not part.hide_render]
        if found:
            return found
    return []


def realize_group():
    """A node group that turns instances (leaves, spikes) into geometry."""
    tree = bpy.data.node_groups.new("realize", "GeometryNodeTree")
    tree.interface.new_socket("Geometry", in_out="INPUT", socket_type="NodeSocketGeometry")
    tree.interface.new_socket("Geometry", in_out="OUTPUT", socket_type="NodeSocketGeometry")
    start, step, end = (tree.nodes.new(kind) for kind in ("NodeGroupInput", "GeometryNodeRealizeInstances", "NodeGroupOutput"))
    tree.links.new(start.outputs[0], step.inputs[0])
    tree.links.new(step.outputs[0], end.inputs[0])
    return tree


def select_alone(part):
    """Make a part the only selected and the active object, with a mesh of its own."""
    bpy.ops.object.select_all(action="DESELECT")
    part.hide_set(False)
    bpy.context.view_layer.objects.active = part
    part.select_set(True)
    if part.data.users > 1:
        part.data = part.data.copy()


def apply_modifiers(part, realize):
    """Turn a part's modifiers into geometry; those that fail are left out."""
    if any(modifier.type == "NODES" for modifier in part.modifiers):
        part.modifiers.new("realize", "NODES").node_group = realize
    for modifier in list(part.modifiers):
        if modifier.type == "PARTICLE_SYSTEM":
            part.modifiers.remove(modifier)
            continue
        try:
            bpy.ops.object.modifier_apply(modifier=modifier.name)
        except RuntimeError as problem:
            print("modifier:", problem, file=sys.stderr)  # noqa: T201
            part.modifiers.remove(modifier)


def n_triangles(part):
    """Triangles of a part's mesh."""
    sizes = np.zeros(len(part.data.polygons), np.int32)
    part.data.polygons.foreach_get("loop_total", sizes)
    return int((sizes - 2).sum())


def reduce(part, triangles):
    """Decimate a part to about that many triangles, within its box: Blender throws single vertices far away."""
    present = n_triangles(part)
    if present > triangles:
        before = positions(part)
        part.modifiers.new("fewer", "DECIMATE").ratio = triangles / present
        bpy.ops.object.modifier_apply(modifier="fewer")
        after = np.clip(positions(part), before.min(axis=0), before.max(axis=0))
        part.data.vertices.foreach_set("co", after.reshape(-1))
        part.data.update()


def drop_spikes(part):
    """Delete the vertices of a part that lie far from all others."""
    distance = np.linalg.norm(positions(part) - np.median(positions(part), axis=0), axis=1)
    far = np.flatnonzero(~(distance <= SPIKES * np.percentile(distance, 90)))
    if len(far):
        shape = bmesh.new()
        shape.from_mesh(part.data)
        shape.verts.ensure_lookup_table()
        bmesh.ops.delete(shape, geom=[shape.verts[index] for index in far], context="VERTS")
        shape.to_mesh(part.data)
        shape.free()


def positions(part):
    """Vertices (V, 3) of a part in its own frame."""
    values = np.zeros(len(part.data.vertices) * 3, np.float32)
    part.data.vertices.foreach_get("co", values)
    return values.reshape(-1, 3)


def shine_colors(tree, seen):
    """Let every shader of a node tree emit its base colour, so that metal, glass and leaves bake like anything else."""
    if tree is None or tree.as_pointer() in seen:
        return
    seen.add(tree.as_pointer())
    for node in list(tree.nodes):
        if node.type == "GROUP":
            shine_colors(node.node_tree, seen)
        elif node.type in COLOR_INPUTS:
            source = node.inputs[COLOR_INPUTS[node.type]]
            light = tree.nodes.new("ShaderNodeEmission")
            light.inputs["Color"].default_value = source.default_value
            for link in source.links:
                tree.links.new(link.from_socket, light.inputs["Color"])
            replace_output(tree, node.outputs[0], light.outputs[0])
    for node in list(tree.nodes):
        if node.type in ("MIX_SHADER", "ADD_SHADER"):
            keep_one_side(tree, node)


def replace_output(tree, old, new):
    """Lead every link that leaves one socket from another."""
    for target in [link.to_socket for link in old.links]:
        tree.links.new(new, target)


def keep_one_side(tree, node):
    """Where one side of a mix is a hole or nothing, and for sums: only the (first) coloured side stays."""
    sides = node.inputs[1:3] if node.type == "MIX_SHADER" else node.inputs[0:2]
    solid = [side.links[0].from_socket for side in sides if side.links and side.links[0].from_node.type != "BSDF_TRANSPARENT"]
    if solid and (len(solid) == 1 or node.type == "ADD_SHADER"):
        replace_output(tree, node.outputs[0], solid[0])


def prepare_materials(parts):
    """Make all materials of the parts emit their base colours, without displacement."""
    seen = set()
    for part in parts:
        if not any(part.data.materials):
            part.data.materials.clear()
            part.data.materials.append(bpy.data.materials.new("plain"))
        for material in part.data.materials:
            if material is not None and material.use_nodes:
                shine_colors(material.node_tree, seen)


def bake(part):
    """Linear base colours (corners, 3) of a part's mesh, by Cycles."""
    layers = part.data.color_attributes
    layers.active_color = layers.new("baked", "FLOAT_COLOR", "CORNER")
    bpy.ops.object.bake(type="EMIT", target="VERTEX_COLORS")
    baked = part.data.color_attributes["baked"]
    colors = np.zeros(len(baked.data) * 4, np.float32)
    baked.data.foreach_get("color", colors)
    return colors.reshape(-1, 4)[:, :3]


def arrays_of(part):
    """Vertices (V, 3) in metres, faces (F, 3), corner colours (F, 3, 3) linear, and the area of each material name."""
    colors = bake(part)
    mesh = part.data
    mesh.calc_loop_triangles()
    n = len(mesh.loop_triangles)
    loops, faces, slots = np.zeros(n * 3, np.int32), np.zeros(n * 3, np.int32), np.zeros(n, np.int32)
    areas = np.zeros(n, np.float32)
    for name, values in (("loops", loops), ("vertices", faces), ("material_index", slots), ("area", areas)):
        mesh.loop_triangles.foreach_get(name, values)
    pose = np.array(part.matrix_world, dtype=np.float32)
    names = [slot.name.split(".")[0] if slot else "none" for slot in mesh.materials]
    area = Counter()
    for slot in np.unique(slots):
        area[names[min(slot, len(names) - 1)]] += float(areas[slots == slot].sum())
    return positions(part) @ pose[:3, :3].T + pose[:3, 3], faces.reshape(-1, 3), colors[loops].reshape(-1, 3, 3), area


def write(path, vertices, faces, colors):
    """Write one object whole or not at all."""
    used, faces = np.unique(faces, return_inverse=True)
    vertices, faces = vertices[used], faces.reshape(-1, 3)
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    size = float(np.linalg.norm(high - low))
    if not np.isfinite(vertices).all() or size < 1e-4:
        raise ValueError(f"box of {size} m")
    whole = np.rint((vertices - (low + high) / 2) / size * 65534)
    temporary = f"{path}.{os.getpid()}.tmp.npz"
    np.savez_compressed(
        temporary,
        vertices=np.clip(whole, -32767, 32767).astype(np.int16),
        size=np.float32(size),
        faces=faces.astype(np.uint16 if len(vertices) < 65536 else np.uint32),
        colors=(np.clip(colors, 0, 1) ** (1 / 2.2) * 255 + 0.5).astype(np.uint8),
    )
    os.replace(temporary, path)


def make(job):
    """Make, reduce, bake and write one object; its answer."""
    started = time.monotonic()
    parts = parts_of(spawn(job))
    realize = realize_group()
    for part in parts:
        select_alone(part)
        apply_modifiers(part, realize)
        if len(part.data.vertices):
            drop_spikes(part)
    parts = [part for part in parts if len(part.data.polygons)]
    total = sum(n_triangles(part) for part in parts)
    if not 0 < total <= LARGEST_INPUT:
        raise ValueError(f"{total} triangles")
    for part in parts:
        select_alone(part)
        reduce(part, max(job["triangles"] * n_triangles(part) / total, 200))
    prepare_materials(parts)
    made = time.monotonic()
    pieces, area, n_vertices = [], Counter(), 0
    for part in parts:
        select_alone(part)
        vertices, faces, colors, areas = arrays_of(part)
        pieces.append((vertices, faces + n_vertices, colors))
        area, n_vertices = area + areas, n_vertices + len(vertices)
    vertices, faces, colors = (np.concatenate(arrays) for arrays in zip(*pieces, strict=True))
    write(job["path"], vertices, faces, colors)
    whole = sum(area.values()) or 1.0
    shares = {name: round(value / whole, 3) for name, value in area.most_common(4)}
    seconds = {"make": round(made - started, 1), "bake": round(time.monotonic() - made, 1)}
    return {"ok": True, "seconds": seconds, "triangles": len(faces), "of": total, "materials": shares}


def set_up_cycles():
    """One sample, one thread, on the CPU: a bake of colours needs no more."""
    scene = bpy.context.scene
    scene.render.engine, scene.cycles.device, scene.cycles.samples = "CYCLES", "CPU", 1
    scene.render.threads_mode, scene.render.threads = "FIXED", 1


def main():
    """Answer every job of standard input."""
    mend_creatures()
    shorten_cloth()
    for line in sys.stdin:
        job = json.loads(line)
        set_up_cycles()
        try:
            answer = make(job)
        except Exception as problem:
            frame = traceback.extract_tb(problem.__traceback__)[-1]
            place = f"{os.path.basename(frame.filename)}:{frame.lineno}"
            callers = " < ".join(step.name for step in traceback.extract_tb(problem.__traceback__)[:-5:-1])
            answer = {"ok": False, "reason": f"{type(problem).__name__}: {str(problem)[:200]} ({place}, {callers})"}
        answers.write(json.dumps({"generator": job["generator"], "seed": job["seed"], **answer}) + "\n")


if __name__ == "__main__":
    main()
