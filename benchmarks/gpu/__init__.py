"""All that is to be measured on an NVIDIA GPU, in one call of under ten minutes; README.md says how."""
