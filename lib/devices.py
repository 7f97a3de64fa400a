"""Where is everything computed, does bfloat16 pay there, and is memory kept for the next step?"""

import ctypes
import platform
from functools import lru_cache
from pathlib import Path

import torch

CPU = Path("/proc/cpuinfo")
NATIVE = {"avx512_bf16", "amx_bf16", "bf16"}  # instructions for bfloat16 of x86 (two), of ARM
_KEEP = {-3: 32 * 2**20, -1: 2**31 - 1}  # M_MMAP_THRESHOLD, its maximum; M_TRIM_THRESHOLD


def device() -> torch.device:
    """A CUDA device where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def name(device: torch.device) -> str:
    """What the GPU or the processor is called."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()


def bfloat16_pays(device: torch.device) -> bool:
    """Has the device instructions for bfloat16? Without them it can take ten times as long."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and bool(NATIVE & _flags())


def precision(wanted: str, device: torch.device) -> str:
    """What matrix products really use: float32 in place of bfloat16 where that does not pay."""
    return "float32" if wanted == "bfloat16" and not bfloat16_pays(device) else wanted


@lru_cache
def keep_memory() -> bool:
    """Let this process keep what it frees, for its next tensors; False where that is not to be had.

    glibc hands freed tensors back to the system, which fills new pages with zeros for those that
    follow: up to a sixth of a training step. Blocks of more than 32 MiB still go back, or the gaps
    that they leave, which tensors of other sizes do not fill, add up to several times the memory.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # of glibc; not of macOS, not of musl
    return mallopt is not None and all(mallopt(name, value) for name, value in _KEEP.items())


@lru_cache
def _flags() -> set[str]:
    """The instruction sets of this processor, as Linux lists them; elsewhere none is known."""
    return {
        flag for key in ("flags", "Features") for line in _lines(key)[:1] for flag in line.split()
    }


def _processor() -> str:
    return next(iter(_lines("model name")), platform.processor() or platform.machine())


def _lines(key: str) -> list[str]:
    """What Linux says of every core under a key."""
    lines = CPU.read_text().splitlines() if CPU.exists() else []
    pairs = (line.partition(":") for line in lines)
    return [value.strip() for name, _, value in pairs if name.strip() == key]
