"""Segmentations and structured reports, written and read back before they may leave."""
