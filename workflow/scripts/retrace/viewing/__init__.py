"""Looking at volumes: neuroglancer, its screenshots, and plain pictures."""
