"""Settings that tests train by."""

from __future__ import annotations

from pathlib import Path

import train

TWO_STREAMS = str(Path(train.__file__).parent / "pretrained" / "plate" / "demo.yaml")
"""A narrow network of two streams, of which a CPU trains an epoch in a second or two; the demo's preset."""
