"""Writing assets: GLB, OBJ, PLY, STL and USDZ."""
