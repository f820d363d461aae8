"""From a checkpoint to an engine that gives the same answers."""

GATE_IMAGES = 16
"""Pictures that an export is compared on unless asked otherwise; `verify` takes all."""

CALIBRATION_IMAGES = 64
"""Good pictures that ranges are measured on unless asked otherwise, at most."""
