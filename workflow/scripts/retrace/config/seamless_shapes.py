"""Sizes in SEAMLeSS's network that no setting changes.

Without imports: a packaged network contains this module.
"""

PRE_ENCODER_KERNEL, ENCODER_KERNEL = 7, 3
"""Sides of the filters (SEAMLeSS, pyramid.py)."""
