"""What our small servers have in common: where they listen, who is let in, and how they look."""
