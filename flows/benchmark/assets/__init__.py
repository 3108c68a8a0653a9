"""What the benchmark checks of assets: validity, size, and how another renderer sees them."""
