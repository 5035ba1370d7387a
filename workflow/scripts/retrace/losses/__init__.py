"""Losses and the weights that go with them."""
