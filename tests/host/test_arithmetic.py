"""What a training computes with is its own, whatever the host was told to sample with; asked inside the host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from host.hosts import Host


@pytest.fixture(scope="module")
def inside(host: Host) -> dict[str, Any]:
    """What the script finds that runs in the host's own python."""
    script = Path(__file__).resolve().parent / "arithmetic_inside.py"
    return host.ask(script, "--pack", script.parents[2])


def test_attention_is_the_hosts_on_pytorch(inside: dict[str, Any]) -> None:
    """Every form of mask, with heads apart or not on the way in and out."""
    assert len(inside["attention"]) == 20
    assert set(inside["attention"].values()) == {0.0}


def test_attention_never_runs_on_cudnn(inside: dict[str, Any]) -> None:
    """Teacher, student and recomputed blocks, on a host that puts cuDNN first; afterwards it may again."""
    assert inside["cudnn"]["calls"] > 0
    assert inside["cudnn"]["allowed"] == 0
    assert inside["cudnn"]["allowed_after"] == 1


def test_a_streamed_model_trains_in_its_own_dtypes(inside: dict[str, Any], host: Host) -> None:
    """A bf16, fp32 or fp16 file in an fp16 or fp8 model: as where the host does not stream, bit for bit."""
    if host.version == "0.3.64":
        assert inside["streamed"] == {}  # it cannot stream
        return
    assert inside["streamed"] == {
        "bf16 in fp16": {"dtypes": ["float16"], "size": 0, "same": True, "difference": 0.0},
        "fp32 in fp16": {"dtypes": ["float16"], "size": 0, "same": True, "difference": 0.0},
        "fp16 in fp8": {"dtypes": ["float8_e4m3fn"], "size": 0, "same": True, "difference": 0.0},
    }


def test_a_streamed_model_without_another_loader_is_told(inside: dict[str, Any]) -> None:
    """Not by a switch of the host's that will go."""
    assert len(inside["no_other_loader"]) == 2
    for told in inside["no_other_loader"]:
        assert "Load Checkpoint" in told and "--" not in told


def test_fp8_products_are_for_sampling_alone(inside: dict[str, Any]) -> None:
    """Teacher and student multiply as a plain model does; the fast product is there again afterwards."""
    found = dict(inside["fast_matmul"])
    assert found.pop("after") == 1
    assert found == {
        "in_training": 0,
        "restored": True,
        "teacher_is_student": True,
        "gradient": True,
        "as_plain": True,
    }


def test_a_scaled_fp8_layer_keeps_its_scale(inside: dict[str, Any], host: Host) -> None:
    expected = {"fast": 0, "difference": 0.0} if host.version == "0.3.64" else {}  # newer hosts have no such class
    assert inside["scaled_fp8"] == expected


def test_only_the_hosts_own_fast_layers_are_replaced(inside: dict[str, Any]) -> None:
    """One of another pack, and one that a node has changed, stay; a gated layer refuses what cuts the gradient."""
    assert inside["fast_forward"] == [True, False, False]


def test_sums_in_float16_are_for_sampling_alone(inside: dict[str, Any]) -> None:
    """Also where PyTorch has no such switch, and on a device without autocast."""
    found = inside["precision"]
    assert (found["inside"], found["after"]) == (False, True)
    assert found["older"] == [{"allow_tf32": True}, {"allow_tf32": False}]


def test_pictures_take_a_hundredth_of_the_time(inside: dict[str, Any]) -> None:
    found = inside["pictures"]
    assert (found["first"], found["last"]) == (1, 1000)
    assert 0.005 < found["share"] < 0.0105
