"""A process of its own: unpickle.py SOURCE TARGET turns a pickled checkpoint into safetensors.

Whatever a pickle does, it does it here: without the environment, with twice the file's size and 512
MB of memory more than torch has taken, and what goes through Python opens no socket, starts no
program, reads no file but the source and Python's own modules, and writes none but what it says of
the target. Native code is held by the limits alone, and by the missing network where the kernel
lets us take it away. Only weights are let through (`weights_only=True`). Imports nothing of
storygen. Exits with 0, or with a line on standard error and a code: 3 for a file that holds
something else than weights, 4 for one that asks for too much.
"""

import ctypes
import json
import os
import pickle
import re
import resource
import sys
from types import ModuleType
from typing import Any, NoReturn

# A third of the time that torch takes to start goes to shapes without numbers: not needed here.
sys.modules.setdefault("torch._meta_registrations", ModuleType("not loaded"))

import torch  # noqa: E402 - after the line above
from safetensors.torch import save_file  # noqa: E402 - it imports torch

MAX_TENSORS = 16_384
SPARE_BYTES = 512 << 20  # beyond the file and a copy of it
GROUP_BYTES = 64 << 20  # written at a time
CPU_SECONDS = 120
WRAPPERS = ("model_state_dict", "state_dict", "model", "module")
NAME = re.compile(r"[\w.\-]{1,200}", re.ASCII)
DESCRIPTIONS = ("model_args", "config")  # of nanoGPT: plain numbers that say what the network is
OUTSIDE = (
    *("socket.", "subprocess.", "pty.", "shutil.", "os.exec", "os.fork", "os.spawn", "os.system"),
    *("os.posix_spawn", "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink"),
    *("os.chmod", "os.chown", "os.truncate"),
)
MODULES = tuple(f"{os.path.normpath(place)}{os.sep}" for place in sys.path if place)
NEW_NETWORK = 0x40000000  # CLONE_NEWNET
DONT_NEED = 4  # MADV_DONTNEED
_source = _target = ""


def main(source: str, target: str) -> None:
    """Convert source into target-00000.safetensors and so on; target.json has what else is said."""
    with open(source, "rb") as file:
        mapped = file.read(2) == b"PK"  # the form before torch 1.6 is read as a whole
        size = file.seek(0, 2)
    _shut_in(size, source, target)
    try:
        found = torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError:
        _refuse(3, "holds something else than weights")
    except (MemoryError, torch.OutOfMemoryError):
        _refuse(4, "asks for more memory than it is large")
    except Exception:
        _refuse(3, "is damaged or cut off")
    state = _state_dict(found)
    floats, aliases = _checked(state, size)
    _write(floats, target, mapped)
    with open(f"{target}.json", "w", encoding="utf-8") as file:
        json.dump({"aliases": aliases, "values": _values(found)}, file)


def _shut_in(size: int, source: str, target: str) -> None:
    """Give up what a converter has no need of: torch is loaded already."""
    global _source, _target
    _source, _target = source, target
    libc = ctypes.CDLL(None)
    if hasattr(libc, "unshare"):
        libc.unshare(NEW_NETWORK)  # where the kernel lets us; sys.addaudithook below does not ask
    with open("/proc/self/statm") as file:
        in_use = int(file.read().split()[0]) * resource.getpagesize()
    limits = {
        resource.RLIMIT_AS: in_use + 2 * size + SPARE_BYTES,
        resource.RLIMIT_CPU: CPU_SECONDS,
        resource.RLIMIT_FSIZE: size + (1 << 20),
        resource.RLIMIT_NOFILE: 16,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_CORE: 0,
    }
    for limit, value in limits.items():
        hard = resource.getrlimit(limit)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))
    torch.set_num_threads(1)
    sys.dont_write_bytecode = True
    sys.addaudithook(_forbid)


def _forbid(event: str, args: tuple[Any, ...]) -> None:
    """No sockets, no programs, no other files: reading weights never needs them."""
    if event.startswith(OUTSIDE) or (event == "open" and not _is_ours(*args)):
        _refuse(3, "tried to reach out of its file")


def _is_ours(path: Any, mode: str | None, flags: int) -> bool:
    """Whether a file may be opened: the source, what is written for the target, a module."""
    if not isinstance(path, str) or os.path.normpath(path) != path:
        return False
    if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND):
        return path == f"{_target}.json"
    return path == _source or path.startswith(MODULES)


def _state_dict(found: Any) -> dict[str, torch.Tensor]:
    """The weights in what was saved: one of its entries, or itself."""
    for name in (*WRAPPERS, ""):
        inner = found.get(name) if name and isinstance(found, dict) else found
        if isinstance(inner, dict):
            tensors = {k: v for k, v in inner.items() if isinstance(v, torch.Tensor)}
            if (
                tensors
                and len(tensors) >= len(inner) / 2
                and all(isinstance(k, str) for k in tensors)
            ):
                return tensors
    _refuse(3, "holds no state_dict")


def _checked(
    state: dict[str, torch.Tensor], size: int
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The floating-point tensors, none larger than its file; and which names mean the same one."""
    floats: dict[str, torch.Tensor] = {}
    aliases: dict[str, str] = {}
    seen: dict[tuple[Any, ...], str] = {}
    total = 0
    if len(state) > MAX_TENSORS:
        _refuse(4, f"holds {len(state)} tensors")
    for name, tensor in state.items():
        if not NAME.fullmatch(name):
            _refuse(4, "names a tensor as none can be named")
        if tensor.layout != torch.strided or not tensor.is_floating_point():
            continue
        place = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride())
        if tensor.numel() and place in seen:
            aliases[name] = seen[place]
            continue
        seen[place] = name
        total += tensor.nbytes
        if total > size or tensor.nbytes > tensor.untyped_storage().nbytes():
            _refuse(4, "describes more numbers than it holds")
        floats[name] = tensor.detach()
    if not floats:
        _refuse(3, "holds no weights")
    return floats, aliases


def _write(floats: dict[str, torch.Tensor], target: str, mapped: bool) -> None:
    """Groups of tensors as files of their own, so that only one group is in memory."""
    group: dict[str, torch.Tensor] = {}
    number = 0
    names = list(floats)
    for name in names:
        group[name] = floats.pop(name)
        if sum(tensor.nbytes for tensor in group.values()) >= GROUP_BYTES or name == names[-1]:
            save_file(
                {name: _alone(tensor) for name, tensor in group.items()},
                f"{target}-{number:05d}.safetensors",
            )
            for tensor in group.values() if mapped else ():
                _forget(tensor)
            group, number = {}, number + 1


def _alone(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, or a copy where it is a view of something larger or turned."""
    if tensor.is_contiguous() and tensor.nbytes == tensor.untyped_storage().nbytes():
        return tensor
    return tensor.clone(memory_format=torch.contiguous_format)


def _forget(tensor: torch.Tensor) -> None:
    """Let go of the pages of a mapped file that have been read; they could be read again."""
    page = resource.getpagesize()
    start = -(-tensor.data_ptr() // page) * page
    length = tensor.data_ptr() + tensor.nbytes - start
    if length > 0:
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), DONT_NEED)


def _values(found: Any) -> dict[str, dict[str, Any]]:
    """What is said of the network beside its weights."""
    return {
        name: {k: v for k, v in list(said.items())[:100] if _is_plain(k) and _is_plain(v)}
        for name in DESCRIPTIONS
        if isinstance(found, dict) and isinstance(said := found.get(name), dict)
    }


def _is_plain(value: Any) -> bool:
    return isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) < 200)


def _refuse(code: int, why: str) -> NoReturn:
    sys.stderr.write(f"{why}\n")
    sys.stderr.flush()
    sys.exit(code)


if __name__ == "__main__":
    main(*sys.argv[1:])
