"""Trained models at work: sources of pictures, the predictor, its results, and keeping them."""
