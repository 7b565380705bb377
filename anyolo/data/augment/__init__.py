"""Random changes to training pictures, numpy and OpenCV only (loader processes never import torch).

All of it takes a ``numpy.random.Generator`` and draws from nothing else.
"""
