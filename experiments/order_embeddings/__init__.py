"""Order embeddings of images and captions (§6.1, figure 1, table 2)."""
