"""Generated volumes and sections with known ground truth."""
