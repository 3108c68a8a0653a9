"""Text priors: prompts to token states, score networks of four families, and the LoRA domain on top."""
