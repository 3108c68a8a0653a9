"""A furniture library made up for tests: a cube, the same cube in another colour, and a chair-like thing with a known front."""

import zipfile
from pathlib import Path

CUBE = """mtllib cube.mtl
v -1 -1 -1\nv 1 -1 -1\nv 1 1 -1\nv -1 1 -1\nv -1 -1 1\nv 1 -1 1\nv 1 1 1\nv -1 1 1
usemtl front
f 5 6 7 8
usemtl body
f 1 4 3 2\nf 1 2 6 5\nf 2 3 7 6\nf 3 4 8 7\nf 4 1 5 8
"""

PROPERTIES = """id=Tiny
name#1=Red box
id#1=Tiny#red
tags#1=Test, Box
category#1=Living room
model#1=/tiny/red/cube.obj
width#1=100
depth#1=50
height#1=200
creator#1=Nobody
id#2=Tiny#blue
name#2=Blue crate
tags#2=
category#2=Living room
model#2=/tiny/blue/cube.obj
width#2=100
depth#2=50
height#2=200
creator#2=Nobody
id#3=Tiny#turned
name#3=Caf\\u00e9 table
tags#3=
category#3=Kitchen
model#3=/tiny/red/cube.obj
modelRotation#3=0 0 1 0 1 0 -1 0 0
width#3=100
depth#3=100
height#3=100
creator#3=Nobody
id#4=Tiny#door
name#4=Glass door
tags#4=
category#4=Doors and windows
model#4=/tiny/red/cube.obj
width#4=100
depth#4=100
height#4=100
creator#4=Nobody
"""


def write_tiny_library(folder: Path) -> Path:
    """Write Tiny.sh3f into `folder` and answer the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / "Tiny.sh3f", "w") as archive:
        archive.writestr("PluginFurnitureCatalog.properties", PROPERTIES.encode("latin-1"))
        for name, body in (("red", "0.8 0.1 0.1"), ("blue", "0.1 0.1 0.8")):
            archive.writestr(f"tiny/{name}/cube.obj", CUBE)
            archive.writestr(f"tiny/{name}/cube.mtl", f"newmtl front\nKd 0 1 0\nnewmtl body\nKd {body}\n")
    return folder
