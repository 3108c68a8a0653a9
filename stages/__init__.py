"""Tasks: one file a stage, in the order reference, nerf, neus, dmtet, polish, texture, export. Stages do not import each other."""
