"""What this process may use of the machine, also in a container."""

from __future__ import annotations

import platform
import re
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_info

from gpunn.cores import CGROUP, read


def processor(info: Path = Path("/proc/cpuinfo")) -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", read(info), re.MULTILINE)
    return found[1] if found else platform.processor() or platform.machine()


def memory_limit(cgroup: Path = CGROUP) -> int | None:
    """The bytes that a container may take; None without a limit."""
    limit = read(cgroup / "memory.max").strip()
    return int(limit) if limit.isdigit() else None


def memory_of(info: Path = Path("/proc/meminfo")) -> tuple[int, int]:
    """All memory of the machine and the free part in bytes; zeros if the system does not say."""
    text = read(info)
    found = [re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE) for name in ("MemTotal", "MemAvailable")]
    total, free = (int(match[1]) * 1024 if match else 0 for match in found)
    return total, free


def blas_libraries() -> list[dict[str, Any]]:
    """The libraries with which NumPy multiplies matrices, as far as threadpoolctl knows them."""
    return [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
