"""`generate`: with and without caches, with beams, from embeddings, from encoded media, each as if alone."""

import pytest
import torch
from batches import inputs_for
from kinds import KINDS
from tiny import AUDIO, IMAGE, VIDEO, tiny_model, video_media
from transformers import DynamicCache
from transformers.generation import utils as generation_utils


SETTINGS = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0, "suppress_tokens": [VIDEO, IMAGE, AUDIO]}

in_chunks = pytest.mark.skipif(
    not hasattr(generation_utils, "_slice_mm_encoder_output"),
    reason="this transformers does not cut encoded media into the chunks of a prompt (it raises)",
)


def speaking_model(seed=0, **settings):
    """A tiny model whose answers depend on what it is given (its first weights say the same thing to everything)."""
    model = tiny_model(seed, **settings)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in (model.model.language_model, model.model.resampler, model.lm_head):
            for parameter in module.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.15)
    return model


def samples():
    """None, one and two videos; an image; sound alone."""
    return [
        [],
        [video_media(questions=(1.0,), seed=1)],
        [video_media((0.5,), 0, 1.0, seed=2), video_media((0.5, 5.0), 3.2, 6.0, questions=(0.5, 2.0), seed=3)],
        [video_media((None,), 0, 0, seed=4)],
        [video_media((), 4.0, 4.0, seed=5)],
    ]


def answers(model, inputs, **settings):
    """New tokens of each returned sequence."""
    length = inputs["input_ids"].shape[1] if "input_ids" in inputs else 0
    return model.generate(**inputs, **{**SETTINGS, **settings})[:, length:].tolist()


@pytest.fixture(scope="module")
def model():
    return speaking_model(seed=3)


@pytest.fixture(scope="module")
def greedy(model):
    return answers(model, inputs_for(model, *samples()))


class TowerCalls:
    """How often the vision tower ran."""

    def __init__(self, model):
        self.count = 0
        self.hook = model.model.vision_tower.register_forward_pre_hook(self.call)

    def call(self, *_):
        self.count += 1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.hook.remove()


def test_answers_depend_on_what_is_asked_about(model, greedy):
    assert len({tuple(answer) for answer in greedy}) == len(greedy)
    media = samples()[1][0]
    loud = {**media, "input_features": media["input_features"] * 3 + 1}
    assert answers(model, inputs_for(model, [loud], seeds=[1])) != [greedy[1]]


@pytest.mark.parametrize(
    "settings",
    [
        {"use_cache": False},
        {"cache_implementation": "static"},
        {"prompt_lookup_num_tokens": 3},
    ],
    ids=["uncached", "static", "prompt lookup"],
)
def test_every_way_of_greedy_decoding_agrees(model, greedy, settings):
    if "prompt_lookup_num_tokens" in settings:
        found = [
            answers(model, inputs_for(model, media, seeds=[seed]), **settings)[0]
            for seed, media in enumerate(samples())
        ]
    else:
        found = answers(model, inputs_for(model, *samples()), **settings)
    assert found == greedy


def test_an_assistant_model_of_the_same_kind(model, greedy):
    for assistant in (model, speaking_model(seed=1)):
        for seed, media in enumerate(samples()):
            inputs = inputs_for(model, media, seeds=[seed])
            assert answers(model, inputs, assistant_model=assistant) == [greedy[seed]]


def test_a_sample_is_answered_as_if_alone(model, greedy):
    for seed, media in enumerate(samples()):
        assert answers(model, inputs_for(model, media, seeds=[seed])) == [greedy[seed]]


@pytest.mark.parametrize("settings", [{"num_beams": 3}, {"num_beams": 3, "num_return_sequences": 2}])
@pytest.mark.parametrize("use_cache", [True, False])
def test_beams_and_several_sequences_keep_media_with_their_sample(model, settings, use_cache):
    together = answers(model, inputs_for(model, *samples()), use_cache=use_cache, **settings)
    alone = []
    for seed, media in enumerate(samples()):
        alone += answers(model, inputs_for(model, media, seeds=[seed]), use_cache=use_cache, **settings)
    assert together == alone
    if "num_return_sequences" in settings:
        assert together[0::2] != together[1::2]


def test_sampling_two_sequences(model):
    inputs = inputs_for(model, *samples())
    torch.manual_seed(0)
    found = model.generate(**inputs, **{**SETTINGS, "do_sample": True, "top_k": 1, "num_return_sequences": 2})
    found = found[:, inputs["input_ids"].shape[1] :].tolist()
    assert found[0::2] == found[1::2] == answers(model, inputs)


@pytest.mark.parametrize("settings", [{}, {"use_cache": False}, {"num_beams": 3}])
def test_media_are_encoded_once(model, settings):
    with TowerCalls(model) as calls:
        answers(model, inputs_for(model, *samples()), **settings)
    assert calls.count == 1


def test_from_embeddings(model, greedy):
    text = inputs_for(model, samples()[0])
    embeds = model.get_input_embeddings()(text["input_ids"])
    found = model.generate(inputs_embeds=embeds, attention_mask=text["attention_mask"], **SETTINGS)
    assert found.tolist() == [greedy[0]]


@pytest.mark.parametrize("settings", [{}, {"num_beams": 2}])
def test_from_embeddings_with_media(model, settings):
    inputs = inputs_for(model, *samples())
    expected = answers(model, inputs, **settings)
    inputs["inputs_embeds"] = model.get_input_embeddings()(inputs.pop("input_ids"))
    assert answers(model, inputs, **settings) == expected


def test_from_media_that_were_encoded_before(model, greedy):
    inputs = inputs_for(model, *samples())
    text = {name: inputs.pop(name) for name in ("input_ids", "attention_mask")}
    features = model.get_video_features(**inputs)
    kept = [part.clone() for part in features.pooler_output]
    with TowerCalls(model) as calls:
        for settings in ({}, {"num_beams": 2}, {}):
            found = answers(model, {**text, "mm_encoder_outputs": {"video": features}}, **settings)
        assert calls.count == 0
    assert found == greedy
    # What the caller handed over is as it was.
    assert len(features.pooler_output) == len(kept)
    assert all(torch.equal(left, right) for left, right in zip(kept, features.pooler_output, strict=True))
    with pytest.raises(ValueError, match="both as tensors and as `mm_encoder_outputs`"):
        model(**text, **inputs, mm_encoder_outputs={"video": features})


@in_chunks
def test_a_prompt_in_chunks(model, greedy):
    for chunk in (3, 64):
        inputs = inputs_for(model, samples()[1], samples()[2], seeds=[1, 2])
        assert answers(model, inputs, prefill_chunk_size=chunk) == greedy[1:3]


def test_a_second_question_to_a_cache(model):
    """A conversation goes on without its media: they are in the cache."""
    inputs = inputs_for(model, samples()[1])
    cache = DynamicCache(config=model.config.text_config)
    first = model.generate(**inputs, **SETTINGS, past_key_values=cache)
    more = torch.cat([first, torch.tensor([[7, 8, 9]])], dim=1)
    mask = torch.ones_like(more)
    expected = model.generate(**{**inputs, "input_ids": more, "attention_mask": mask}, **SETTINGS)
    with TowerCalls(model) as calls:
        found = model.generate(input_ids=more, attention_mask=mask, past_key_values=cache, **SETTINGS)
        assert calls.count == 0
    assert torch.equal(found, expected)


def test_generation_keeps_no_more_than_the_tokens_of_the_media(model):
    media = inputs_for(model, *samples())
    for name in ("input_ids", "attention_mask"):
        media.pop(name)
    kept = model._prepare_multimodal_encoder_kwargs_for_generation(media)["mm_encoder_outputs"]["video"]
    assert list(kept.keys()) == ["pooler_output"]


def test_unknown_arguments_are_refused(model):
    with pytest.raises(ValueError, match="pixel_vlaues"):
        model.generate(**inputs_for(model, []), **SETTINGS, pixel_vlaues=torch.zeros(1))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "avts"])
def test_other_connectors(kind):
    model = speaking_model(**KINDS[kind])
    together = answers(model, inputs_for(model, *samples()), num_beams=2)
    for seed, media in enumerate(samples()):
        assert answers(model, inputs_for(model, media, seeds=[seed]), num_beams=2) == [together[seed]]


@in_chunks
@pytest.mark.parametrize("chunk", [3, 6, 64])
def test_prompts_read_in_chunks_lose_no_medium(model, chunk):
    for media in samples()[1:]:
        inputs = inputs_for(model, media)
        assert answers(model, inputs, prefill_chunk_size=chunk) == answers(model, inputs)
