"""Inference engines: one contract, each with its library loaded only when it opens."""
