"""What a shift was like, from the events of its lines, as one page."""
