"""Which pictures a folder holds: MVTec AD's, VisA's and DAGM's layouts, plain folders, and trees of textures.

Pictures are listed, never opened. The layout is recognised by what is there.
"""

from stlm_edge.datasets.dagm import DAGM_SEED
from stlm_edge.datasets.layouts import categories, load_category
from stlm_edge.datasets.near_duplicates import Look
from stlm_edge.datasets.parts import Parts, find_parts, parts_as_said
from stlm_edge.datasets.samples import ANOMALY, GOOD, Category, Sample, check_masks, read_truth
from stlm_edge.datasets.textures import texture_paths

__all__ = [
    "ANOMALY",
    "DAGM_SEED",
    "GOOD",
    "Category",
    "Look",
    "Parts",
    "Sample",
    "categories",
    "check_masks",
    "find_parts",
    "load_category",
    "parts_as_said",
    "read_truth",
    "texture_paths",
]
