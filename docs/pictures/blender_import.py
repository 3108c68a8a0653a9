"""Import an asset into Blender as a user would, and take a picture of it with its textures and normal map under light.

    apt-get install --no-install-recommends blender python3-numpy
    blender --background --factory-startup --python docs/pictures/blender_import.py -- asset.glb picture.png

Reads GLB, OBJ, PLY and STL. Ends with 1 if the importer fails or says a warning, or if nothing was imported.
"""

import logging
import math
import sys
from pathlib import Path

import bpy
import numpy
from mathutils import Vector

SIZE, SAMPLES = 640, 24

# Blender 3.4's glTF importer, as Debian 12 ships it, uses a name that the numpy beside it no longer has.
if "bool" not in vars(numpy):
    numpy.bool = bool


class Heard(logging.Handler):
    """Keeps what importers say from warnings on."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def import_file(path: Path) -> None:
    """By the ending of its name."""
    operators = {
        ".glb": lambda: bpy.ops.import_scene.gltf(filepath=str(path)),
        ".obj": lambda: bpy.ops.wm.obj_import(filepath=str(path)),
        ".ply": lambda: bpy.ops.import_mesh.ply(filepath=str(path)),
        ".stl": lambda: bpy.ops.import_mesh.stl(filepath=str(path)),
    }
    operators[path.suffix.lower()]()


def bounds(objects: list) -> tuple[Vector, Vector]:
    """Lowest and highest corner, world frame."""
    corners = [item.matrix_world @ Vector(corner) for item in objects for corner in item.bound_box]
    return Vector(map(min, *corners)), Vector(map(max, *corners))


def place_camera_and_lights(low: Vector, high: Vector) -> None:
    """A three-quarter view from the front (Blender's -Y for a glTF's +Z), key light and grey surroundings."""
    middle, radius = (low + high) / 2, (high - low).length / 2
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    camera.data.angle = math.radians(30)
    direction = Vector((0.55, -1.0, 0.45)).normalized()
    camera.location = middle + direction * radius / math.sin(math.radians(15)) * 1.05
    camera.rotation_euler = (middle - camera.location).to_track_quat("-Z", "Y").to_euler()
    sun = bpy.data.objects.new("sun", bpy.data.lights.new("sun", "SUN"))
    sun.data.energy = 2.5
    sun.rotation_euler = (math.radians(50), 0, math.radians(-35))
    for item in (camera, sun):
        bpy.context.scene.collection.objects.link(item)
    bpy.context.scene.camera = camera
    world = bpy.data.worlds.new("grey")
    world.use_nodes = True
    world.node_tree.nodes["Background"].inputs["Color"].default_value = (0.8, 0.8, 0.8, 1)
    bpy.context.scene.world = world


def render(picture: Path) -> None:
    """By Cycles on the CPU, which needs no graphics card."""
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.cycles.device, scene.cycles.samples = "CPU", SAMPLES
    scene.cycles.use_denoising = False
    scene.view_settings.view_transform = "Standard"
    scene.render.resolution_x = scene.render.resolution_y = SIZE
    scene.render.threads_mode, scene.render.threads = "FIXED", 1
    scene.render.image_settings.file_format = "PNG"
    scene.render.filepath = str(picture.resolve())
    bpy.ops.render.render(write_still=True)


def main() -> None:
    """Import, report, picture."""
    asset, picture = (Path(word) for word in sys.argv[sys.argv.index("--") + 1 :])
    for item in list(bpy.data.objects):
        bpy.data.objects.remove(item)
    heard = Heard()
    logging.getLogger().addHandler(heard)
    try:
        import_file(asset)
    except (RuntimeError, KeyError) as error:
        sys.stdout.write(f"not imported: {error}\n")
        sys.exit(1)
    meshes = [item for item in bpy.data.objects if item.type == "MESH"]
    if not meshes:
        sys.stdout.write("nothing was imported\n")
        sys.exit(1)
    bpy.context.view_layer.update()
    low, high = bounds(meshes)
    sides = ", ".join(f"{side:.3f}" for side in high - low)
    triangles = sum(len(item.data.loop_triangles) or len(item.data.polygons) for item in meshes)
    pictures = ", ".join(f"{image.name} {image.size[0]}x{image.size[1]}" for image in bpy.data.images if image.source == "FILE")
    sys.stdout.write(f"{asset.name}: {triangles} triangles, {sides} m, pictures: {pictures}\n")
    place_camera_and_lights(low, high)
    render(picture)
    for line in heard.lines:
        sys.stdout.write(f"warning: {line}\n")
    sys.exit(1 if heard.lines else 0)


main()
