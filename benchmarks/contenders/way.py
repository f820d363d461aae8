"""How PyTorch is to run a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from stlm_edge.errors import ConfigError

Device = Literal["cpu", "cuda"]
Base = Literal["eager", "batched"]
Trait = Literal["half", "tf32", "channels-last", "compile", "cuda-graph"]

WORDS: tuple[str, ...] = (*get_args(Base), *get_args(Trait))

_GPU_ONLY = ("tf32", "cuda-graph")


@dataclass(frozen=True)
class Way:
    """One of the ways.

    Attributes:
        base: `eager`, the authors' straightforward way, or `batched`, this toolkit's network as it is trained: the
            decoder is asked for all pictures of both streams at once.
        traits: what is done besides: `half` (autocast: FP16 on a GPU, bfloat16 on a processor), `tf32`,
            `channels-last`, `compile` (`torch.compile`), `cuda-graph` (with `compile`: its mode `reduce-overhead`).
    """

    base: Base
    traits: tuple[Trait, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Way:
        """A base, a trait, or several joined by +, such as `half+compile`; without a base it is `batched`.

        Raises `ConfigError`.
        """
        words = text.split("+")
        base: Base = "eager" if words[0] == "eager" else "batched"
        rest = words[1:] if words[0] in get_args(Base) else words
        if len(set(rest)) < len(rest) or not set(rest) <= set(get_args(Trait)):
            raise ConfigError(
                f"found the way {text!r}, expected one of {', '.join(WORDS)}, or several joined by + (eager or batched "
                "in front only), such as half+compile"
            )
        if base == "eager" and "cuda-graph" in rest:
            raise ConfigError(
                f"found the way {text!r}, but the authors' way sends constants to the GPU each time, which no CUDA "
                "graph can hold; measure the way 'cuda-graph'"
            )
        return cls(base, tuple(trait for trait in get_args(Trait) if trait in rest))

    def __str__(self) -> str:
        if self.base == "eager":
            return " ".join(["authors' way", *self.traits])
        return " ".join(["PyTorch", *(self.traits or ("batched",))])

    def precision(self, device: Device) -> str:
        """As engines' records have it, and `tf32`."""
        if "half" in self.traits:
            return "fp16" if device == "cuda" else "bf16"
        return "tf32" if "tf32" in self.traits else "fp32"

    def require_device(self, device: Device) -> None:
        """Raises `ConfigError` if it needs another device."""
        needs = [trait for trait in self.traits if trait in _GPU_ONLY]
        if needs and device == "cpu":
            raise ConfigError(f"found the way {needs[0]} on the processor, expected a GPU; add --device cuda")
