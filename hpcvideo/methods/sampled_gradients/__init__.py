"""Sampled gradients (ETAD's SGS, arXiv 2205.07134): a long video's encoder is trained in the memory of a few snippets."""
