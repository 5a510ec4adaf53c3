"""Restoring photos: models by name or place, tiles in bounded memory, photo files with all that belongs to them."""
