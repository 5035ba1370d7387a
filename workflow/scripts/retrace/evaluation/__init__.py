"""Scores of segmentations against dense ground truth and skeletons."""
