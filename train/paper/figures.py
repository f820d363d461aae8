"""What the paper's tables 1 to 3 print of STLM and of the methods that it is compared with, and what figure 1 draws.

Li, Qi, Geng, *A SAM-guided Two-stream Lightweight Model for Anomaly Detection* (arXiv 2402.19145). Averages over all
categories of a data set, in percent; `train.paper.results` has STLM's own figures by category and for each ablation.
The paper took the accuracy of others from their papers or from re-evaluations, and states that all its experiments ran
on one NVIDIA GeForce RTX 3090. It prints no unit with the inference times; they are milliseconds.

Table 2's header has a column too many for each data set. A row's four numbers are image AUROC, pixel AUROC, PRO and AP,
as its averages show; where a row has five, PRO stands there twice. Table 1's FOD and table 3's CFA are in no other.
The averages in RD4AD's row are RD++'s; no row has those of RD4AD. Here they are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

GPU = "NVIDIA GeForce RTX 3090"
SOURCE = "Li, Qi, Geng, A SAM-guided Two-stream Lightweight Model for Anomaly Detection, arXiv 2402.19145"


@dataclass(frozen=True)
class Accuracy:
    """Averages over a data set, in percent; None where the paper prints none."""

    image_auroc: float | None = None
    pixel_auroc: float | None = None
    aupro: float | None = None
    pixel_ap: float | None = None


@dataclass(frozen=True)
class Method:
    """A column of table 1 and the rows of tables 2 and 3 that are about the same method.

    Attributes:
        parameters_m: millions.
        inference_ms: of a picture on the RTX 3090; None where the paper has none.
    """

    name: str
    parameters_m: float
    inference_ms: float | None
    mvtec: Accuracy
    visa: Accuracy | None = None
    dagm: Accuracy | None = None


METHODS = (
    Method(
        "DRAEM",
        97,
        159,
        Accuracy(97.60, 96.70, 92.10, 68.40),
        Accuracy(88.70, 94.40, 73.70, 30.50),
        Accuracy(90.80, 86.80, 71.00, 30.60),
    ),
    Method("CFLOW", 94.7, 37, Accuracy(97.50, 97.70)),
    Method("CFA", 25.6, None, Accuracy(aupro=94.44)),
    Method(
        "PatchCore",
        186.55,
        180,
        Accuracy(99.20, 98.10, 93.40, 56.10),
        Accuracy(95.10, 98.80, 91.20, 40.10),
        Accuracy(93.60, 96.70, 89.30, 51.70),
    ),
    Method(
        "RD4AD",
        150.64,
        28,
        Accuracy(98.70, 97.80, 93.93, 58.00),
        Accuracy(96.00, 90.10, 70.90, 27.70),
        Accuracy(95.80, 97.50, 93.00, 53.40),
    ),
    Method(
        "SimpleNet",
        52.88,
        39,
        Accuracy(99.57, 98.14, 90.00, 54.80),
        Accuracy(96.80, 97.80, 88.70, 36.30),
        Accuracy(95.30, 97.10, 91.30, 48.10),
    ),
    Method(
        "DeSTSeg",
        35.16,
        18,
        Accuracy(99.00, 98.20, 95.11, 75.80),
        Accuracy(91.95, 97.73, 90.02, 40.76),
        Accuracy(97.44, 93.55, 87.88, 56.99),
    ),
    Method(
        "RD++",
        154.87,
        30,
        Accuracy(99.44, 98.25, 94.99, 60.80),
        Accuracy(95.90, 98.70, 93.40, 40.80),
        Accuracy(98.50, 97.40, 93.80, 64.30),
    ),
    Method(
        "FastFlow",
        92,
        None,
        Accuracy(90.50, 95.50, 85.60, 39.80),
        Accuracy(82.20, 88.20, 59.80, 15.60),
        Accuracy(87.40, 91.10, 79.90, 34.20),
    ),
    Method("FOD", 28.83, 103, Accuracy(99.20, 98.30)),
    Method(
        "STLM",
        16.56,
        20,
        Accuracy(99.05, 98.26, 94.92, 76.32),
        Accuracy(96.73, 98.36, 93.83, 47.63),
        Accuracy(98.30, 96.33, 91.14, 64.91),
    ),
)
