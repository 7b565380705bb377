"""Rows of a YAML to a network: rows, blocks, heads, the Detector, folding and counting."""
