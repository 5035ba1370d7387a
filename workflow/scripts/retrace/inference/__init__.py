"""Prediction: a volume through a trained network, tile by tile."""
