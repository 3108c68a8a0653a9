"""A read mesh with new colours, written back so that everything else of its file comes out as it went in."""
