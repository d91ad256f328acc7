"""The whole model: batches of any mixture, padding, errors, gradients, attention paths, other backbones."""

import kinds
import pytest
import torch
from batches import gap, inputs_for, logits_of, num_tokens, realigned
from tiny import (
    AUDIO,
    IMAGE,
    SPEECH,
    VIDEO,
    join_media,
    tiny_config,
    tiny_model,
    video_media,
)
from transformers import (
    CONFIG_MAPPING,
    Siglip2ImageProcessorPil,
    Siglip2VisionConfig,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from saven_hf.savenvideo.layout import NO_TIME
from saven_hf.savenvideo.modeling_savenvideo import (
    SAVEnVideoForConditionalGeneration,
    SAVEnVideoModel,
)
from saven_hf.savenvideo.towers import siglip2_inputs


KINDS = {
    **kinds.KINDS,
    "token": {"time_fusion": "token"},
    "literal": {"resampler_attention": "literal"},
    "mlp with speech": {"resampler_type": "mlp", "speech_config": SPEECH},
}


def silent(**kwargs):
    return video_media((0.5, 3.0, 7.5), 0, 8.0, **kwargs)


def sound(**kwargs):
    return video_media((), 5.2, 5.2, **kwargs)


def image(**kwargs):
    return video_media((None,), 0, 0, **kwargs)


def normalised(medium):
    """The same medium with float pixels, as a processor with do_normalize hands them over."""
    if "pixel_values_videos" not in medium:
        return medium
    return {**medium, "pixel_values_videos": medium["pixel_values_videos"].float() / 127.5 - 1}


def every_kind_of_sample(kind="avts"):
    speech = "speech_config" in KINDS[kind]
    return [
        [video_media(questions=(1.0, 2.5), seed=1, speech=speech)],
        [silent(questions=(0.0,), seed=2)],
        [sound(questions=(1.0, 2.0, 3.0), seed=3, speech=speech)],
        [image(seed=4)],
        [],
        [image(seed=5), video_media((1.0,), 2.0, 2.0, seed=6, speech=speech)],
    ]


class TestBatches:
    @pytest.mark.parametrize("side", ["left", "right"])
    @pytest.mark.parametrize("kind", KINDS)
    def test_a_sample_gets_the_logits_it_gets_alone(self, kind, side):
        model = tiny_model(**KINDS[kind])
        samples = every_kind_of_sample(kind)
        together = logits_of(model, inputs_for(model, *samples, side=side))
        for seed, (media, found) in enumerate(zip(samples, together, strict=True)):
            (alone,) = logits_of(model, inputs_for(model, media, seeds=[seed]))
            assert gap(alone, found) < 1e-4, seed

    @pytest.mark.parametrize("kind", KINDS)
    def test_order_of_the_batch_and_what_padding_holds_change_nothing(self, kind):
        model = tiny_model(**KINDS[kind])
        samples = [[normalised(medium) for medium in media] for media in every_kind_of_sample(kind)]
        clean = inputs_for(model, *samples)
        dirty = inputs_for(model, *samples, fill=float("nan"))
        assert dirty["pixel_values_videos"].isnan().any() and dirty["input_features"].isnan().any()
        dirty["frame_times"][~dirty["frame_mask"]] = 123_456
        dirty["query_times"][~dirty["query_times_mask"]] = 9_999_999
        dirty["audio_times"][~dirty["input_features_mask"].any(-1)] = -1
        if "speech_features" in dirty:
            assert dirty["speech_features"].isnan().any()
            dirty["speech_times"][~dirty["speech_features_mask"].any(-1)] = -1
        for left, right in zip(logits_of(model, clean), logits_of(model, dirty), strict=True):
            assert torch.equal(left, right)
        order = [4, 2, 5, 0, 3, 1]
        moved = logits_of(model, inputs_for(model, *(samples[index] for index in order), seeds=order))
        for place, index in enumerate(order):
            assert gap(logits_of(model, clean)[index], moved[place]) < 1e-4

    @pytest.mark.parametrize("kind", KINDS)
    def test_what_only_saves_memory_changes_nothing(self, kind):
        samples = every_kind_of_sample(kind)
        reference = tiny_model(**KINDS[kind])
        inputs = inputs_for(reference, *samples)
        for settings in ({"resampler_max_keys": 1}, {"resampler_max_keys": 60}, {"tower_batch_size": 1}):
            for left, right in zip(
                logits_of(reference, inputs), logits_of(tiny_model(**KINDS[kind], **settings), inputs), strict=True
            ):
                assert gap(left, right) < 1e-4

    @pytest.mark.parametrize("kind", KINDS)
    def test_one_broken_sample_leaves_the_others_alone(self, kind):
        model = tiny_model(**KINDS[kind])
        samples = [[normalised(video_media(questions=(1.0,), seed=1))], [normalised(silent(seed=2))], [sound(seed=3)]]
        whole = logits_of(model, inputs_for(model, *samples))
        samples[0][0]["pixel_values_videos"].fill_(float("nan"))
        samples[0][0]["input_features"].fill_(float("nan"))
        broken = logits_of(model, inputs_for(model, *samples))
        assert broken[0].isnan().any()
        assert torch.equal(whole[1], broken[1]) and torch.equal(whole[2], broken[2])

    def test_frames_may_be_missing_in_the_middle(self):
        model = tiny_model()
        whole = video_media((0.5, 1.5, 2.5, 5.0), 0, 6.5)
        holes = {name: value.clone() for name, value in whole.items()}
        holes["frame_mask"][0, 1] = False
        keep = [0, 2, 3]
        without = {name: value[:, keep] if name != "video_durations" else value for name, value in whole.items()}
        found = [model.get_video_features(**medium).pooler_output[0] for medium in (holes, without)]
        assert gap(*found) < 1e-5

    def test_bytes_are_normalised_by_the_model(self):
        model = tiny_model(image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4])
        medium = video_media()
        mean, std = torch.tensor([0.4, 0.5, 0.6])[:, None, None], torch.tensor([0.2, 0.3, 0.4])[:, None, None]
        by_hand = {**medium, "pixel_values_videos": (medium["pixel_values_videos"].float() / 255 - mean) / std}
        found = [model.get_video_features(**each).pooler_output[0] for each in (medium, by_hand)]
        assert gap(*found) < 1e-6

    def test_removing_sound_time_or_question_times_is_noticed(self):
        model = tiny_model(window_seconds=None)
        full = video_media(questions=(1.0, 2.0))
        other = {**full, "query_times": full["query_times"] + 500_000}
        mute = {name: value for name, value in full.items() if not name.startswith(("input", "audio"))}
        timeless = {
            **full,
            "frame_times": torch.full_like(full["frame_times"], NO_TIME),
            "audio_times": torch.full_like(full["audio_times"], NO_TIME),
        }
        reference = model.get_video_features(**full).pooler_output[0]
        for changed in (mute, timeless, other):
            assert gap(reference, model.get_video_features(**changed).pooler_output[0]) > 1e-4

    def test_text_alone_is_the_language_model(self):
        model = tiny_model()
        inputs = inputs_for(model, [], [])
        hidden = model.model.language_model(**inputs).last_hidden_state
        assert torch.equal(model(**inputs).logits, model.lm_head(hidden))

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    @pytest.mark.parametrize("kind", KINDS)
    def test_half_precision(self, kind, dtype):
        model = tiny_model(**KINDS[kind]).to(dtype)
        inputs = inputs_for(model, *every_kind_of_sample(kind))
        for logits in logits_of(model, inputs):
            assert logits.dtype == dtype and torch.isfinite(logits).all()

    @pytest.mark.parametrize("kind", KINDS)
    def test_autocast(self, kind):
        model = tiny_model(**KINDS[kind])
        inputs = inputs_for(model, *every_kind_of_sample(kind))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = logits_of(model, inputs)
        for left, right in zip(found, logits_of(model, inputs), strict=True):
            assert gap(left, right) < 0.05


class TestFeatures:
    def test_video_image_and_audio_features_are_one_thing(self):
        model = tiny_model()
        media = [silent(), sound(), image()]
        joined = model.get_video_features(**join_media(*media)).pooler_output
        audio = {name: value for name, value in media[1].items() if not name.startswith("frame")}
        assert gap(joined[1], model.get_audio_features(**audio).pooler_output[0]) < 1e-5
        pixels = normalised(media[2])["pixel_values_videos"][:, 0]
        assert gap(joined[2], model.get_image_features(pixels).pooler_output[0]) < 1e-5

    def test_audio_of_one_window_may_leave_the_window_out(self):
        model = tiny_model()
        features = torch.randn(2, 48, 128)
        mask = torch.ones(2, 48, dtype=torch.bool)
        flat, nested = (
            model.get_audio_features(features[index], input_features_mask=mask[index]).pooler_output
            for index in ((), (slice(None), None))
        )
        assert all(torch.equal(left, right) for left, right in zip(flat, nested, strict=True))

    def test_towers_outputs_come_along(self):
        model = tiny_model()
        out = model.get_video_features(**video_media(), output_hidden_states=True)
        assert out.last_hidden_state.shape == (4, 4, 16) and len(out.hidden_states) == 3
        out = model.get_video_features(**sound())
        assert out.last_hidden_state.shape[0] == 2 and out.hidden_states is None
        assert isinstance(model.get_video_features(**silent(), return_dict=False), tuple)

    def test_another_layer_of_the_vision_tower(self):
        model = tiny_model(vision_feature_layer=-2)
        out = model.get_video_features(**silent())
        assert out.hidden_states is None  # one layer is kept, not all of them
        all_layers = model.get_video_features(**silent(), output_hidden_states=True)
        assert torch.equal(out.last_hidden_state, all_layers.hidden_states[-2])
        assert gap(out.pooler_output[0], tiny_model().get_video_features(**silent()).pooler_output[0]) > 1e-6

    def test_padding_never_reaches_a_tower(self):
        model = tiny_model()
        seen = []
        model.model.vision_tower.register_forward_pre_hook(
            lambda module, args, kwargs: seen.append(len(kwargs["pixel_values"])), with_kwargs=True
        )
        model.model.audio_tower.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
        model.get_video_features(**join_media(video_media(), silent(), sound(), image()))
        assert seen == [4 + 3 + 1, 2 + 2]


class TestErrors:
    def test_tokens_and_placeholders_must_be_as_many(self):
        model = tiny_model()
        inputs = inputs_for(model, [silent()])
        inputs["input_ids"][0, 4] = 5
        with pytest.raises(ValueError, match="7 placeholder tokens, but there were media of 8 tokens"):
            model(**inputs)

    def test_placeholders_without_media(self):
        model = tiny_model()
        inputs = inputs_for(model, [silent()])
        only_text = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        with pytest.raises(ValueError, match="8 placeholder tokens, but there were no media"):
            model(**only_text)
        with pytest.raises(ValueError, match="8 placeholder tokens, but there were no media"):
            model.generate(**only_text, max_new_tokens=2)

    def test_media_without_placeholders(self):
        model = tiny_model()
        with pytest.raises(ValueError, match="0 placeholder tokens, but there were media of 8 tokens"):
            model(**inputs_for(model, []), **silent())

    def test_frames_of_another_size(self):
        model = tiny_model()
        with pytest.raises(ValueError, match=r"\(1, 3, 3, 30, 30\).*\(media, frames, 3, 28, 28\)"):
            model.get_video_features(**silent(side=30))

    def test_features_of_another_shape(self):
        model = tiny_model()
        medium = sound()
        medium["input_features_mask"] = medium["input_features_mask"][..., 1:]
        with pytest.raises(ValueError, match="input_features.*expected"):
            model.get_video_features(**medium)

    def test_a_medium_with_nothing_in_it(self):
        model = tiny_model()
        medium = video_media()
        medium["frame_mask"].fill_(False)
        medium["input_features_mask"].fill_(False)
        with pytest.raises(ValueError, match="Medium 1 of 2 has neither"):
            model.get_video_features(**join_media(silent(), medium))
        # Sound shorter than one patch of 160 ms is none.
        medium["input_features_mask"][0, 0, :15] = True
        with pytest.raises(ValueError, match="Medium 0 of 1 has neither"):
            model.get_video_features(**medium)

    def test_neither_or_both_of_ids_and_embeddings(self):
        model = tiny_model()
        with pytest.raises(ValueError, match="either `input_ids` or `inputs_embeds`"):
            model()

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"resampler_heads": 5}, r"resampler_hidden_size \(24\).*resampler_heads \(5\)"),
            ({"time_periods": [1.0, 0.0]}, "time_periods"),
            ({"vision_config": {"model_type": "dinov2"}}, "dinov2"),
            ({"text_config": {"model_type": "no_such_model"}}, "no_such_model"),
            ({"audio_config": {"patch_size": 8, "num_mel_bins": 128}}, "patch_size is 8"),
        ],
    )
    def test_configurations_that_do_not_fit(self, settings, message):
        with pytest.raises(ValueError, match=message):
            tiny_config(**settings)


class TestEmbeddings:
    def test_from_embeddings_with_media(self):
        model = tiny_model()
        inputs = inputs_for(model, [video_media()], [image()])
        ids = inputs.pop("input_ids")
        embeds = model.get_input_embeddings()(ids)
        from_ids, from_embeds = model(input_ids=ids, **inputs).logits, model(inputs_embeds=embeds, **inputs).logits
        assert torch.equal(from_ids, from_embeds)

    def test_more_tokens_than_before(self):
        model = tiny_model()
        inputs = inputs_for(model, [silent()])
        before = model(**inputs).logits
        model.resize_token_embeddings(110)
        assert model.config.text_config.vocab_size == 110 and model.lm_head.weight.shape[0] == 110
        after = model(**inputs)
        assert torch.equal(before, after.logits[..., :100]) and after.logits.shape[-1] == 110
        labels = inputs["input_ids"].clone()
        assert torch.isfinite(model(**inputs, labels=labels).loss)

    def test_logits_to_keep_and_loss(self):
        model = tiny_model()
        inputs = inputs_for(model, [silent()], [])
        full = model(**inputs).logits
        assert gap(full[:, -2:], model(**inputs, logits_to_keep=2).logits) < 1e-6
        assert gap(full[:, [0, 3]], model(**inputs, logits_to_keep=torch.tensor([0, 3])).logits) < 1e-6
        labels = inputs["input_ids"].masked_fill(inputs["input_ids"] >= VIDEO, -100)
        labels[inputs["attention_mask"] == 0] = -100
        shifted = torch.nn.functional.cross_entropy(full[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        assert model(**inputs, labels=labels).loss.item() == pytest.approx(shifted.item(), abs=1e-5)

    def test_placeholders_are_of_three_kinds(self):
        config = tiny_model().config
        assert (config.video_token_id, config.image_token_id, config.audio_token_id) == (VIDEO, IMAGE, AUDIO)


class TestAttentionAndOutputs:
    @pytest.mark.parametrize("kind", KINDS)
    def test_eager_and_sdpa_agree(self, kind):
        model = tiny_model(**KINDS[kind])
        inputs = inputs_for(model, *every_kind_of_sample(kind))
        sdpa = logits_of(model, inputs)
        model.set_attn_implementation("eager")
        assert model.model.audio_tower.config._attn_implementation == "eager"
        for left, right in zip(sdpa, logits_of(model, inputs), strict=True):
            assert gap(left, right) < 1e-5

    def test_hidden_states_and_attentions_of_the_language_model(self):
        model = tiny_model()
        model.set_attn_implementation("eager")
        inputs = inputs_for(model, [video_media()])
        out = model(**inputs, output_hidden_states=True, output_attentions=True)
        length = inputs["input_ids"].shape[1]
        assert [tuple(state.shape) for state in out.hidden_states] == [(1, length, 32)] * 3
        assert [tuple(weights.shape) for weights in out.attentions] == [(1, 4, length, length)] * 2
        assert torch.equal(model.lm_head(out.hidden_states[-1]), out.logits)
        assert out.video_hidden_states.shape == (num_tokens(model, video_media()), 32)

    def test_tuples_for_those_who_ask(self):
        model = tiny_model()
        inputs = inputs_for(model, [silent()])
        assert torch.equal(model(**inputs, return_dict=False)[0], model(**inputs).logits)

    @pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
    def test_a_compiled_language_model_says_the_same(self, backend):
        model = tiny_model()
        inputs = inputs_for(model, *every_kind_of_sample())
        eager = logits_of(model, inputs)
        model.model.language_model.compile(backend=backend)
        for left, right in zip(eager, logits_of(model, inputs), strict=True):
            assert gap(left, right) < 1e-4


class TestGradients:
    """Gradients reach what learns and nothing else."""

    LEARNS = (
        "resampler.visual_mlp",
        "resampler.audio_mlp",
        "resampler.queries",
        "resampler.query_position",
        "resampler.patch_position",
        "resampler.band_position",
        "resampler.modality_embedding",
        "resampler.layers.0",
        "resampler.layers.1",
        "resampler.output_projection",
        "temporal_projection.projection.weight",
        "temporal_projection.projection.bias",
        "language_model",
    )

    def backward(self, model):
        inputs = inputs_for(model, *every_kind_of_sample())
        labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
        loss = model(**inputs, labels=labels).loss
        loss.backward()
        return {name: parameter.grad for name, parameter in model.model.named_parameters()}

    @pytest.mark.parametrize("checkpointing", [None, False, True])
    @pytest.mark.parametrize("question_times", ["separate", "joint"])
    def test_they_reach_what_learns(self, question_times, checkpointing):
        model = tiny_model(question_times=question_times).train()
        if checkpointing is not None:
            model.gradient_checkpointing_enable({"use_reentrant": checkpointing})
        gradients = self.backward(model)
        for name, gradient in gradients.items():
            if name.startswith(("vision_tower", "audio_tower")):
                assert gradient is None, name
            # The key projection's bias moves all scores of a query alike: its gradient is nothing but rounding.
            elif name.startswith(self.LEARNS) and not name.endswith("k_proj.bias"):
                assert gradient is not None and gradient.abs().max() > 1e-9, name

    def test_checkpointing_changes_no_gradient(self):
        plain = self.backward(tiny_model().train())
        model = tiny_model().train()
        model.gradient_checkpointing_enable()
        calls = []
        model.model.resampler.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
        for name, gradient in self.backward(model).items():
            assert (gradient is None) == (plain[name] is None), name
            assert gradient is None or torch.allclose(gradient, plain[name], atol=1e-6), name
        # Forward once for the windows and once for each question, and each again in the backward pass.
        assert len(calls) == 2 * (1 + 3)

    def test_a_frozen_language_model_passes_them_on(self):
        model = tiny_model().train()
        model.model.language_model.requires_grad_(False)
        model.lm_head.requires_grad_(False)
        gradients = self.backward(model)
        assert all(value is None for name, value in gradients.items() if name.startswith("language_model"))
        assert gradients["resampler.queries"].abs().max() > 0

    def test_embeddings_that_must_take_a_gradient(self):
        # What trl and peft ask for when checkpointing meets a frozen language model.
        model = tiny_model().train()
        model.model.language_model.requires_grad_(False)
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable({"use_reentrant": True})
        assert self.backward(model)["resampler.queries"].abs().max() > 0

    def test_frozen_towers_do_not_train(self):
        model = tiny_model().train()
        towers = (model.model.vision_tower, model.model.audio_tower)
        assert model.training and model.model.resampler.training and model.model.language_model.training
        assert not any(module.training for tower in towers for module in tower.modules())
        assert not any(parameter.requires_grad for tower in towers for parameter in tower.parameters())
        model.model.train()
        assert not any(tower.training for tower in towers)
        assert not any(module.training for module in model.eval().modules())

    def test_towers_that_shall_learn_do(self):
        model = tiny_model(freeze_vision=False).train()
        assert model.model.vision_tower.training and not model.model.audio_tower.training
        gradients = self.backward(model)
        assert gradients["vision_tower.embeddings.patch_embedding.weight"].abs().max() > 0
        assert all(gradient is None for name, gradient in gradients.items() if name.startswith("audio_tower"))
        model = tiny_model(freeze_audio=False, tower_batch_size=1).train()
        gradients = self.backward(model)
        assert gradients["audio_tower.embeddings.patch_embedding.weight"].abs().max() > 0


TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 100,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
}


class TestBackbones:
    @pytest.mark.parametrize("tied", [False, True])
    @pytest.mark.parametrize("model_type", ["qwen3", "llama", "mistral"])
    def test_other_language_models(self, model_type, tied, tmp_path):
        model = tiny_model(text_config=CONFIG_MAPPING[model_type](**TEXT, tie_word_embeddings=tied))
        assert (model.lm_head.weight is model.get_input_embeddings().weight) == tied
        inputs = inputs_for(model, [video_media(questions=(1.0,))], [])
        alone = logits_of(model, inputs_for(model, [video_media(questions=(1.0,))]))[0]
        found = logits_of(model, inputs)[0]
        assert gap(alone, found) < 1e-4
        model.save_pretrained(tmp_path)
        loaded = SAVEnVideoForConditionalGeneration.from_pretrained(tmp_path)
        assert (loaded.lm_head.weight is loaded.get_input_embeddings().weight) == tied
        assert torch.equal(logits_of(realigned(loaded), inputs)[0], found)

    def siglip2(self):
        return Siglip2VisionConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_patches=4,
            patch_size=14,
            vision_use_head=False,
        )

    def test_siglip2(self, tmp_path):
        model = tiny_model(vision_config=self.siglip2())
        assert model.config.patches_per_frame == 4 and model.config.vision_config.image_size == 28
        inputs = inputs_for(model, *every_kind_of_sample())
        together = logits_of(model, inputs)
        assert gap(together[1], logits_of(model, inputs_for(model, every_kind_of_sample()[1], seeds=[1]))[0]) < 1e-4
        model.save_pretrained(tmp_path)
        loaded = SAVEnVideoForConditionalGeneration.from_pretrained(tmp_path)
        assert loaded.config.patches_per_frame == 4
        for left, right in zip(together, logits_of(realigned(loaded), inputs), strict=True):
            assert torch.equal(left, right)

    def test_siglip2_gets_the_patches_that_its_own_processor_makes(self):
        frames = torch.randint(0, 256, (2, 3, 28, 42), dtype=torch.uint8)
        processor = Siglip2ImageProcessorPil(patch_size=14, max_num_patches=6, do_resize=False)
        expected = processor([frame.permute(1, 2, 0).numpy() for frame in frames], return_tensors="pt")
        found = siglip2_inputs(frames.float() / 127.5 - 1, 14)
        torch.testing.assert_close(found["pixel_values"], expected["pixel_values"], rtol=0, atol=1e-6)
        assert torch.equal(found["spatial_shapes"], expected["spatial_shapes"])
        assert torch.equal(found["pixel_attention_mask"].long(), expected["pixel_attention_mask"].long())

    def test_the_vision_tower_is_siglip_to_the_bit(self):
        model = tiny_model()
        tower = SiglipVisionModel(
            SiglipVisionConfig(**{**model.config.vision_config.to_dict(), "model_type": "siglip_vision_model"})
        ).eval()
        tower.load_state_dict(model.model.vision_tower.state_dict())
        medium = silent()
        out = model.get_video_features(**medium)
        assert torch.equal(
            out.last_hidden_state, tower(normalised(medium)["pixel_values_videos"][0]).last_hidden_state
        )

    def test_the_base_model_is_the_head_models_inside(self):
        torch.manual_seed(0)
        base = SAVEnVideoModel(tiny_config()).eval()
        inputs = inputs_for(base, [video_media()])
        assert base(**inputs).last_hidden_state.shape == (1, inputs["input_ids"].shape[1], 32)
        assert base.base_model is base
