"""Alignment of serial sections: stacks of them, their defects, training, and the aligned volume."""
