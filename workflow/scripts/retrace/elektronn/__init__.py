"""ELEKTRONN's configuration files, and the layers and sizes of its networks."""
