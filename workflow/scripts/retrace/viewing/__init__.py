"""Views of volumes: neuroglancer, its screenshots, and pictures without a browser."""
