"""Reading and writing trained weights: safetensors, and the formats of the original programs."""
