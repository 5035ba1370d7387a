"""ELEKTRONN: its configuration files, its networks' sizes, its data."""
