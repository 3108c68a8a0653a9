"""Geometry of triangle and tetrahedral meshes: marching tetrahedra, topology, decimation, smoothing, tangents."""
