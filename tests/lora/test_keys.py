"""The grammar of key names, one case per way of writing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from duolora_core.lora.keys import bundled_embedding, foreign_kind, split_key, text_layer, uncompiled, unet_layer
from spellings import FORMATS
from tiny import TEXT_SHAPES, layout, pick

TO_Q = "input_blocks.4.1.transformer_blocks.0.attn1.to_q"
TO_OUT = "input_blocks.4.1.transformer_blocks.0.attn1.to_out.0"
CLIP_L = "text_encoders.clip_l.transformer.text_model"
ATTN = "down_blocks.1.attentions.0.transformer_blocks.0.attn1"


@pytest.mark.parametrize(
    ("suffix", "part"),
    [
        (".lora_up.weight", "up"),
        (".lora_down.weight", "down"),
        (".lora_mid.weight", "mid"),
        (".lora_B.weight", "up"),
        (".lora_A.weight", "down"),
        (".lora_B", "up"),
        (".lora_A.default.weight", "down"),
        (".lora_B.default_0.weight", "up"),
        (".lora_A.default", "down"),
        (".lora.up.weight", "up"),
        ("_lora.down.weight", "down"),
        (".lora_linear_layer.up.weight", "up"),
        (".lora_linear_layer.down.weight", "down"),
        (".alpha", "alpha"),
        (".lora.alpha", "alpha"),
        (".diff", "weight_offset"),
        (".diff_b", "bias_offset"),
        (".w_norm", "weight_offset"),
        (".b_norm", "bias_offset"),
        (".set_weight", "new_weight"),
        (".lora_B.bias", "up_bias"),
        (".lora_B.default.bias", "up_bias"),
        (".lora_E.default", "importance"),
        (".dora_scale", "dora_scale"),
        (".magnitude", "magnitude"),
        (".lora_magnitude_vector", "magnitude"),
        (".lora_magnitude_vector.default.weight", "magnitude"),
        (".hada_w1_a", "hada_w1_a"),
        (".hada_t2", "hada_t2"),
        (".lokr_w1", "lokr_w1"),
        (".lokr_w2_b.default", "lokr_w2_b"),
        (".lokr_t2", "lokr_t2"),
        (".oft_blocks", "oft_blocks"),
        (".a1.weight", "glora_a1"),
        (".on_input", "on_input"),
        (".ia3_l.default", "ia3_scales"),
    ],
)
def test_a_key_is_its_layer_and_its_part(suffix: str, part: str) -> None:
    assert split_key(f"unet.{ATTN}.to_q{suffix}") == (f"unet.{ATTN}.to_q", part)


@pytest.mark.parametrize("key", [f"{ATTN}.to_q.weight", "emb_params", "bundle_emb.x.string_to_param.*", "lora_A"])
def test_a_key_of_something_else_has_no_part(key: str) -> None:
    assert split_key(key) is None


@pytest.mark.parametrize("style", list(FORMATS))
def test_every_layer_is_found_again(style: str) -> None:
    form = FORMATS[style]
    names = pick(form.only)
    assert [unet_layer(form.unet(name), layout()) for name in names] == list(names)


@pytest.mark.parametrize(
    ("spelled", "name"),
    [
        (f"unet.{ATTN}.processor.to_q", TO_Q),
        (f"unet.{ATTN}.processor.to_out", TO_OUT),
        (f"unet.{ATTN}.to_out.0", TO_OUT),
        (f"{ATTN}.to_q", TO_Q),
        (f"base_model.model.unet.{ATTN}.to_q", TO_Q),
        (f"unet.base_model.model.{ATTN}.to_q", TO_Q),
        (f"model.diffusion_model.{TO_Q}", TO_Q),
        ("lycoris_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q", TO_Q),
        ("unet.down_blocks.9.attentions.0.proj_in", None),
        ("lora_unet_double_blocks_0_img_attn_proj", None),
        ("lora_te1_text_model_encoder_layers_0_mlp_fc1", None),
    ],
)
def test_prefixes_are_undone(spelled: str, name: str | None) -> None:
    assert unet_layer(spelled, layout()) == name


@pytest.mark.parametrize("spell_text", [form.text for form in FORMATS.values() if form.text])
@pytest.mark.parametrize("name", list(TEXT_SHAPES))
def test_text_layers_get_their_kohya_name(spell_text: Callable[[str], str], name: str) -> None:
    assert text_layer(spell_text(name)) == "lora_" + name.replace(".", "_")


@pytest.mark.parametrize(
    ("spelled", "name"),
    [
        ("lora_te_text_model_encoder_layers_11_mlp_fc2", "lora_te1_text_model_encoder_layers_11_mlp_fc2"),
        ("lora_te2_text_projection", "lora_te2_text_projection"),
        ("text_encoder_2.text_projection", "lora_te2_text_projection"),
        ("text_encoder.encoder.layers.3.self_attn.q_proj", "lora_te1_text_model_encoder_layers_3_self_attn_q_proj"),
        ("lora_te2_encoder_layers_3_mlp_fc1", "lora_te2_text_model_encoder_layers_3_mlp_fc1"),
        ("clip_l.text_model.encoder.layers.0.mlp.fc2", "lora_te1_text_model_encoder_layers_0_mlp_fc2"),
        ("clip_g.transformer.text_model.encoder.layers.0.mlp.fc2", "lora_te2_text_model_encoder_layers_0_mlp_fc2"),
        ("text_encoders.clip_g.transformer.text_projection", "lora_te2_text_projection"),
        ("lora_te1_text_model_embeddings_token_embedding", f"{CLIP_L}.embeddings.token_embedding"),
        ("text_encoder.text_model.final_layer_norm", f"{CLIP_L}.final_layer_norm"),
        (f"{CLIP_L}.encoder.layers.7.layer_norm2", f"{CLIP_L}.encoder.layers.7.layer_norm2"),
        ("lora_te1_text_model_encoder_layers_0_mlp_fc9", None),
        (f"unet.{ATTN}.to_q", None),
    ],
)
def test_other_text_spellings(spelled: str, name: str | None) -> None:
    assert text_layer(spelled) == name


@pytest.mark.parametrize(
    ("key", "bare"),
    [
        (f"unet._orig_mod.{ATTN}.to_q.lora_A.weight", f"unet.{ATTN}.to_q.lora_A.weight"),
        ("lora_unet__orig_mod_down_blocks_1.alpha", "lora_unet_down_blocks_1.alpha"),
        ("unet.my_orig_mod_x.alpha", "unet.my_orig_mod_x.alpha"),
    ],
)
def test_what_compiling_puts_before_names_is_undone(key: str, bare: str) -> None:
    assert uncompiled(key) == bare


@pytest.mark.parametrize(
    ("key", "word"),
    [
        ("bundle_emb.sks.dog.string_to_param.*", "sks.dog"),
        ("bundle_emb.sks.clip_g", "sks"),
        ("emb_params", None),
    ],
)
def test_a_bundled_embedding_is_known_by_its_word(key: str, word: str | None) -> None:
    assert bundled_embedding(key) == word


@pytest.mark.parametrize("style", list(FORMATS))
def test_a_plain_lora_is_not_taken_for_a_foreign_adapter(style: str) -> None:
    form = FORMATS[style]
    suffixes = [suffix for suffix in (form.up, form.down, form.mid, form.alpha) if suffix]
    assert [foreign_kind(form.unet(TO_Q) + suffix) for suffix in suffixes] == [None] * len(suffixes)
