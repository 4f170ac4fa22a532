"""Finding accelerators by reading the machine's files: ids in sysfs, device nodes, libraries. Nothing is opened or run.

All paths start at a root, which tests and containers move. What reading cannot tell (whether a driver really works) is tried
by an engine in a child process, never here. Blocking, a few milliseconds: off the event loop.

Sources of the ids: Edge TPU: coral.ai/docs (1a6e:089a before, 18d1:9302 after its firmware is loaded; PCIe 1ac1:089a as
/dev/apex_*). Movidius: OpenVINO 2022.3 documentation, myriad udev rules (03e7:2150 NCS, 03e7:2485 NCS2, 03e7:f63b booted).
Jetson: NVIDIA L4T documentation (/etc/nv_tegra_release). Intel: Linux drivers i915, xe (class 0x03) and intel_vpu (/dev/accel).
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

from gatewayd.core.accelerator import Found, Kind
from gatewayd.core.record import record

MAX_ENTRIES = 1024  # protects the scan from a folder gone mad
_MAX_FILE_BYTES = 4096
_INTEL = "0x8086"
_EDGETPU_USB = {"1a6e:089a": "firmware not loaded yet", "18d1:9302": "ready"}
_MOVIDIUS_VENDOR = "03e7"
_LIBRARY_FOLDERS = (
    "usr/lib", "usr/lib64", "usr/local/lib", "lib", "usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu",
    "usr/lib/arm-linux-gnueabihf", "usr/lib/aarch64-linux-gnu/tegra", "usr/local/cuda/lib64",
    "usr/local/cuda/targets/aarch64-linux/lib",
)  # fmt: skip


@record
class Tree:
    """The files of a machine under a root. What cannot be read is not there."""

    root: Path

    def text(self, path: str) -> str:
        """Return a small file's text without its end of line or NUL, or ""."""
        try:
            with (self.root / path).open("rb") as file:
                return file.read(_MAX_FILE_BYTES).decode("utf-8", "replace").strip("\0\n ")
        except OSError:
            return ""

    def names(self, folder: str) -> list[str]:
        """Return what a folder holds, sorted, at most MAX_ENTRIES."""
        try:
            return sorted(each.name for each in islice((self.root / folder).iterdir(), MAX_ENTRIES))
        except OSError:
            return []

    def library(self, name: str) -> str:
        """Return where a shared library is, by the start of its name, or ""."""
        for folder in _LIBRARY_FOLDERS:
            for each in self.names(folder):
                if each.startswith(name):
                    return f"/{folder}/{each}"
        return ""

    def may_use(self, path: str) -> bool:
        """Tell whether this process may read and write a device node."""
        return os.access(self.root / path, os.R_OK | os.W_OK)


def find_accelerators(root: Path = Path("/")) -> tuple[Found, ...]:
    """Return every accelerator under `root`, with what it lacks. Never raises: what cannot be read is not there."""
    tree = Tree(root)
    finders: Iterable[Callable[[Tree], Iterator[Found]]] = (_edgetpus, _jetsons, _movidius, _intel_gpus, _intel_npus)
    return tuple(found for find in finders for found in find(tree))


def _usb(tree: Tree) -> Iterator[tuple[str, str]]:
    """Yield (place, vendor:product) of each USB device."""
    base = "sys/bus/usb/devices"
    for name in tree.names(base):
        vendor = tree.text(f"{base}/{name}/idVendor").lower()
        if vendor:
            yield name, f"{vendor}:{tree.text(f'{base}/{name}/idProduct').lower()}"


def _edgetpus(tree: Tree) -> Iterator[Found]:
    library = (
        () if tree.library("libedgetpu.so") else ("libedgetpu.so.1 (Google's package libedgetpu1-std, or build it)",)
    )
    for place, device in _usb(tree):
        if device in _EDGETPU_USB:
            missing = (*library, *_usb_access(tree, place, "the udev rule of libedgetpu1-std"))
            yield Found(Kind.EDGETPU, f"USB {device} at {place}, {_EDGETPU_USB[device]}", missing)
    for name in tree.names("dev"):
        if re.fullmatch(r"apex_\d{1,3}", name):
            access = () if tree.may_use(f"dev/{name}") else (f"access to /dev/{name}: add the user to the group apex",)
            yield Found(Kind.EDGETPU, f"PCIe at /dev/{name}", (*library, *access))
    if not any(name.startswith("apex_") for name in tree.names("dev")):
        for place, vendor, device, _ in _pci(tree):
            if (vendor, device) == ("0x1ac1", "0x089a"):
                missing = ("the driver gasket/apex, which makes /dev/apex_0 (Google's package gasket-dkms)", *library)
                yield Found(Kind.EDGETPU, f"PCIe at {place}", missing)


def _usb_access(tree: Tree, place: str, how: str) -> tuple[str, ...]:
    base = f"sys/bus/usb/devices/{place}"
    bus, number = tree.text(f"{base}/busnum"), tree.text(f"{base}/devnum")
    if not (bus.isdigit() and number.isdigit()):
        return ()
    node = f"dev/bus/usb/{int(bus):03}/{int(number):03}"
    return () if tree.may_use(node) else (f"access to /{node}: {how}",)


def _jetsons(tree: Tree) -> Iterator[Found]:
    model = tree.text("proc/device-tree/model")
    release = tree.text("etc/nv_tegra_release")
    is_nvidia = "nvidia" in model.lower() and any(word in model.lower() for word in ("jetson", "orin", "xavier"))
    if not is_nvidia and not release:
        return
    match = re.match(r"# R(\d+) \(release\), REVISION: ([\d.]+)", release)
    version = f", L4T {match[1]}.{match[2]}" if match else ""
    missing = []
    if not match:
        missing.append("/etc/nv_tegra_release: NVIDIA's L4T is not the system here (install JetPack)")
    if not tree.library("libcudart.so"):
        missing.append("CUDA (apt install nvidia-jetpack)")
    if not tree.library("libnvinfer.so"):
        missing.append("TensorRT (apt install nvidia-jetpack); without it CUDA alone is used")
    yield Found(Kind.JETSON, f"{model or 'a Tegra board'}{version}", tuple(missing))


def _movidius(tree: Tree) -> Iterator[Found]:
    for place, device in _usb(tree):
        if device.startswith(_MOVIDIUS_VENDOR + ":"):
            missing = _usb_access(tree, place, "OpenVINO 2022.3's udev rule 97-myriad-usbboot.rules")
            yield Found(Kind.MOVIDIUS, f"USB {device} at {place}", missing)


def _pci(tree: Tree) -> Iterator[tuple[str, str, str, str]]:
    base = "sys/bus/pci/devices"
    for name in tree.names(base):
        vendor, device, kind = (tree.text(f"{base}/{name}/{what}").lower() for what in ("vendor", "device", "class"))
        yield name, vendor, device, kind


def _intel_gpus(tree: Tree) -> Iterator[Found]:
    for place, vendor, device, kind in _pci(tree):
        if vendor != _INTEL or not kind.startswith("0x03"):
            continue
        nodes = [name for name in tree.names(f"sys/bus/pci/devices/{place}/drm") if name.startswith("renderD")]
        missing = [] if nodes else ["its driver (i915 or xe), which makes /dev/dri/renderD128"]
        if nodes and not tree.may_use(f"dev/dri/{nodes[0]}"):
            missing.append(f"access to /dev/dri/{nodes[0]}: add the user to the group render")
        if not tree.library("libze_intel_gpu.so") and not _has_opencl(tree):
            missing.append("Intel's compute runtime (Debian: apt install intel-opencl-icd)")
        yield Found(Kind.INTEL_GPU, f"PCI {vendor[2:]}:{device[2:]} at {place}", tuple(missing))


def _has_opencl(tree: Tree) -> bool:
    return any("intel" in name for name in tree.names("etc/OpenCL/vendors"))


def _intel_npus(tree: Tree) -> Iterator[Found]:
    for place, vendor, device, kind in _pci(tree):
        if vendor != _INTEL or not kind.startswith("0x1200"):
            continue
        nodes = [name for name in tree.names("dev/accel") if name.startswith("accel")]
        missing = [] if nodes else ["its driver (intel_vpu, Linux 6.3 and newer), which makes /dev/accel/accel0"]
        if nodes and not tree.may_use(f"dev/accel/{nodes[0]}"):
            missing.append(f"access to /dev/accel/{nodes[0]}: add the user to the group render")
        if not tree.library("libze_intel_vpu.so") and not tree.library("libze_intel_npu.so"):
            missing.append("Intel's NPU user-mode driver (package intel-level-zero-npu)")
        yield Found(Kind.INTEL_NPU, f"PCI {vendor[2:]}:{device[2:]} at {place}", tuple(missing))
