"""The drawn part: of the demo, of `test://`, and the default pictures of the gate."""

SMALLEST_SIDE = 64
"""Of a drawn part, in pixels; below it the defects cannot be told from the scene."""
