"""Reading and writing trained weights."""
