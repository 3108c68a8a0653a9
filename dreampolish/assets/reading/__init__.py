"""Reading meshes as they come: GLB, glTF, OBJ, PLY, STL, OFF and USD, with their colours, into one form."""
