"""The local page of ``blurdm app``: drop a photo, watch, compare before and after, save. Nothing leaves the machine."""
