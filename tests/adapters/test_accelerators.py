from pathlib import Path

import pytest

from gatewayd.adapters.accelerators import find_accelerators
from gatewayd.core.accelerator import Kind

_TREES = Path(__file__).parents[1] / "trees"


@pytest.mark.parametrize(
    ("tree", "kind", "detail"),
    [
        ("pi-coral", Kind.EDGETPU, "USB 18d1:9302 at 2-1, ready"),
        ("apex", Kind.EDGETPU, "PCIe at /dev/apex_0"),
        ("jetson", Kind.JETSON, "NVIDIA Jetson Orin Nano Developer Kit, L4T 36.3.0"),
        ("movidius", Kind.MOVIDIUS, "USB 03e7:2485 at 1-3"),
    ],
)
def test_what_is_complete_lacks_nothing(tree: str, kind: Kind, detail: str) -> None:
    (found,) = find_accelerators(_TREES / tree)
    assert (found.kind, found.detail, found.missing) == (kind, detail, ())
    assert found.is_usable


def test_intel_devices_of_one_machine() -> None:
    gpu, npu = find_accelerators(_TREES / "intel")
    assert (gpu.kind, gpu.detail, gpu.missing) == (Kind.INTEL_GPU, "PCI 8086:7d55 at 0000:00:02.0", ())
    assert (npu.kind, npu.detail, npu.missing) == (Kind.INTEL_NPU, "PCI 8086:7d1d at 0000:00:0b.0", ())


@pytest.mark.parametrize(
    ("tree", "missing"),
    [
        ("fresh-coral", ["libedgetpu.so.1 (Google", "access to /dev/bus/usb/001/004"]),
        ("apex-no-driver", ["the driver gasket/apex", "libedgetpu.so.1"]),
        ("jetson-bare", ["/etc/nv_tegra_release", "CUDA (apt install nvidia-jetpack)", "TensorRT"]),
        ("intel-bare", ["its driver (i915 or xe)", "Intel's compute runtime"]),
    ],
)
def test_what_is_missing_is_told_with_how_to_get_it(tree: str, missing: list[str]) -> None:
    found = find_accelerators(_TREES / tree)[0]
    assert not found.is_usable
    assert len(found.missing) == len(missing)
    assert all(has.startswith(wanted) for has, wanted in zip(found.missing, missing, strict=True)), found.missing


@pytest.mark.parametrize("tree", ["nothing", "no such folder"])
def test_where_there_is_none_none_is_found(tree: str) -> None:
    assert find_accelerators(_TREES / tree) == ()


def test_files_that_make_no_sense_are_not_there(tmp_path: Path) -> None:
    device = tmp_path / "sys/bus/usb/devices/1-1"
    device.mkdir(parents=True)
    (device / "idVendor").write_bytes(b"\xff\xfe" * 5000)
    (device / "idProduct").mkdir()
    (tmp_path / "dev").write_text("a file where a folder belongs")
    assert find_accelerators(tmp_path) == ()
