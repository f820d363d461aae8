"""GigE Vision, USB3 Vision and GenTL cameras, which GenICam describes by nodes of the same names."""
