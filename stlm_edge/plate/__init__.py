"""The drawn part: of the demo, of `test://`, and the default pictures of the gate."""
