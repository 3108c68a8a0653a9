"""Files of a run in other formats, and checks of 3D files."""
