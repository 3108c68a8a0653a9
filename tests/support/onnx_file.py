"""A tiny ONNX network."""

import base64

RED_LESS_GREEN = base64.b64decode(
    "CAg6fwoYCgVpbnB1dAoBdxIGb3V0cHV0IgRDb252EgNyZWQqGwgBCAMIAQgBEAEiDAAAgD8AAIC/AAAAAEIBd1ofCgVpbnB1dBIWChQIARIQCg"
    "IIAQoCCAMKAghACgIIQGIgCgZvdXRwdXQSFgoUCAESEAoCCAEKAggBCgIIQAoCCEBCBAoAEA0="
)
"""A network of one convolution, 64 pixels a side, whose output is red less green: it finds what is red."""
