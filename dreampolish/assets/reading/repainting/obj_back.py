"""An OBJ with new colours: its text as it was, its material library with new pictures."""

from collections.abc import Mapping
from pathlib import PurePosixPath

from dreampolish.assets.reading.obj.wavefront import parse_obj, text_of
from dreampolish.assets.reading.source import MeshFiles

_PAINTED = "painted"


def repainted_obj(files: MeshFiles, pictures: Mapping[int, bytes]) -> dict[str, bytes]:
    """The files of an OBJ, by name. pictures: PNGs by the number of the material, as `obj.read_obj` counts them.

    Vertices, texture coordinates and faces are the same lines. Faces without a material get one, by two lines more at the top.
    """
    mesh = parse_obj(text_of(files.content))
    named = {mesh.material_names[number]: f"{_slug(mesh.material_names[number])}-{number}.png" for number in pictures}
    found = {named[mesh.material_names[number]]: content for number, content in pictures.items()}
    found |= {name: content for name, content in files.beside.items() if name not in mesh.material_libraries}
    text, libraries = _plain_text(files.content), {name: _plain_text(files.named(name)) for name in mesh.material_libraries}
    if "" in named or not libraries:
        text = f"mtllib {_PAINTED}.mtl\nusemtl {_PAINTED}\n".encode() + text
        own = [_PAINTED if name == "" else name for name in named] if not libraries else [_PAINTED]
        lines = [f"newmtl {name}\nKd 1 1 1\nmap_Kd {named['' if name == _PAINTED else name]}\n" for name in own]
        found[f"{_PAINTED}.mtl"] = "".join(lines).encode()
    for name, content in libraries.items():
        found[name] = _with_pictures(content.decode("utf-8", "surrogateescape"), named).encode("utf-8", "surrogateescape")
    return {files.name: text, **found}


def _plain_text(content: bytes) -> bytes:
    """The same bytes, or UTF-8 where they begin with a byte order mark: other lines can then go before them."""
    return text_of(content).encode() if content[:2] in (b"\xff\xfe", b"\xfe\xff", b"\xef\xbb") else content


def _with_pictures(text: str, named: Mapping[str, str]) -> str:
    """A material library in which some materials show other pictures; every other line stays."""
    lines, current = [], ""
    for line in text.splitlines(keepends=True):
        words = line.split(None, 1)
        word = words[0] if words else ""
        if word == "newmtl":
            current = words[1].strip() if len(words) > 1 else ""
            lines.append(line if line.endswith("\n") else line + "\n")
            if current in named:
                lines.append(f"Kd 1 1 1\nmap_Kd {named[current]}\n")
        elif current not in named or word not in ("Kd", "map_Kd"):
            lines.append(line)
    return "".join(lines)


def _slug(name: str) -> str:
    plain = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in PurePosixPath(name).name)
    return plain.strip("-") or "paint"
