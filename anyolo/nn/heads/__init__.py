"""Heads: features to raw maps, and raw maps to boxes."""
