"""Files that somebody else made: how much of them is read, and where they may point. Readers of pictures and meshes begin here."""
