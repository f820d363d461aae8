"""Folders of pictures instead of a camera: every picture is inspected once, also over several starts."""
