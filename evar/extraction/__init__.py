"""From audio files to stored vectors: decode and encode once, keep every layer."""
