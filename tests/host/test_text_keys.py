"""Every name that ComfyUI's own key map has for a layer of SDXL's text encoders is read as that layer."""

from __future__ import annotations

from pathlib import Path

from host.hosts import Host


def test_every_text_encoder_name_of_the_host_is_known(host: Host) -> None:
    here = Path(__file__).resolve().parent
    found = host.ask(here / "text_keys_inside.py", "--pack", here.parents[1])
    assert found["known"] > 900
    assert found["wrong"] == {"lora_prior_te_text_projection": None}, "Stable Cascade's, which is refused by its name"
