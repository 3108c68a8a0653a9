"""What the store holds: looking through it, making room in it, and moving results elsewhere and back."""
