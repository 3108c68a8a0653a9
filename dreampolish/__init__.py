"""The engine: fields, rendering, priors, distillation and meshes in plain torch."""
