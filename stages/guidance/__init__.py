"""What several stages optimise under."""
