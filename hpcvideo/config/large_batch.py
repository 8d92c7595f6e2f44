"""How few updates a large batch may leave: what is published, for those who warn."""

from __future__ import annotations

FEWEST_UPDATES = 1600
"""Of the large-batch reference points of MLPerf Training (ResNet-50 v1.5, all LARS) none makes fewer: 67,840 images a batch
for 85 epochs of ImageNet are 1,605 updates, 65,536 for 83 are 1,622, and all smaller batches make more."""

LARGE_BATCH = 1024
"""Clips from which on few updates are the batch's doing; MLPerf's reference points begin at 1,632 images. With a smaller
batch few updates are just a short run."""
