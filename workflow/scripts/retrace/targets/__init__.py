"""What a network is trained to predict, computed from labels."""
