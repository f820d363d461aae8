"""The network of the paper's section 3 and its weights. Needs torch, timm and segment-anything."""
