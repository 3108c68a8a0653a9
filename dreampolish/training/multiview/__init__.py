"""Training of the joint six-view prior: objects packed small, rendered on the device, and a network that sees all views at once."""
