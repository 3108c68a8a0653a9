"""What everything looks at: cameras, pictures, light."""
