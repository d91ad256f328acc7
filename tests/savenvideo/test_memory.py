"""`VideoMemory` and `encode_video`: window by window gives what all at once gives; a memory knows whose it is."""

import json

import kinds
import pytest
import torch
from batches import dated, gap, inputs_for, logits_of, num_tokens
from safetensors.torch import save_file
from tiny import join_media, tiny_model, video_media

from saven_hf.savenvideo.layout import NO_TIME, PATCH_STEP_US
from saven_hf.savenvideo.memory import VideoMemory
from saven_hf.savenvideo.modeling_savenvideo import SAVEnVideoForConditionalGeneration


class Stream:
    """What `processor.stream_video` promises, cut out of the tensors of one medium: a window at a time, each BEATs
    window as soon as a window reaches beyond its start."""

    preprocessing_hash = "settings"

    def __init__(self, medium, layout):
        self.medium = medium
        self.duration = int(medium["video_durations"])
        frames, columns, speech = dated(medium)
        self.windows = layout.plan(frames, columns, self.duration, speech)

    def __iter__(self):
        given = dict.fromkeys(("audio_times", "speech_times"), 0)
        for window in self.windows:
            chunk = {}
            if window.frames:
                valid = self.medium["frame_mask"][0].nonzero()[:, 0][window.frames]
                for name in ("pixel_values_videos", "frame_times", "frame_mask"):
                    chunk[name] = self.medium[name][:, valid]
            for times, features in (("audio_times", "input_features"), ("speech_times", "speech_features")):
                if times not in self.medium:
                    continue
                starts, last = self.medium[times][0].tolist(), given[times]
                while last < len(starts) and (not window.timed or starts[last] < window.end):
                    last += 1
                if last > given[times]:
                    for name in (features, f"{features}_mask", times):
                        chunk[name] = self.medium[name][:, given[times] : last]
                given[times] = last
            yield chunk


class Processor:
    """Enough of a processor for `encode_video`."""

    def __init__(self, layout):
        self.layout = layout

    def stream_video(self, video, **kwargs):
        return Stream(video, self.layout)


def encode(model, medium):
    return model.encode_video(medium, Processor(model.base_model.layout))


def long_medium(windows=(320, 320, 160), fps=2, speech=False, **kwargs):
    """`fps` frames a second, and BEATs windows of 3.2 s beside resampler windows of 4 s: they straddle."""
    seconds = sum(windows) / 100
    medium = video_media([(i + 0.5) / fps for i in range(int(seconds * fps))], 0, seconds, **kwargs)
    generator = torch.Generator().manual_seed(9)
    medium["input_features"] = torch.randn(1, len(windows), max(windows), 128, generator=generator)
    medium["input_features_mask"] = torch.arange(max(windows)) < torch.tensor(windows)[None, :, None]
    medium["audio_times"] = torch.tensor([[sum(windows[:index]) * 10_000 for index in range(len(windows))]])
    if speech:
        medium |= {
            name: value for name, value in video_media((), seconds, speech=True).items() if name.startswith("speech_")
        }
    return medium


def moved(medium, offset):
    for name in ("audio_times", "speech_times"):
        if name in medium:
            medium[name] += offset
    return medium


def late_sound(speech):
    return moved(long_medium(speech=speech), 3_000_000)


def undated(speech):
    medium = long_medium(speech=speech)
    for name in medium.keys() & {"frame_times", "audio_times", "speech_times"}:
        medium[name].fill_(NO_TIME)
    return medium


def early_and_overhanging_sound(speech):
    """Sound that starts before the picture and goes on after the stated end."""
    medium = moved(long_medium((320, 320, 320), speech=speech), -40_000)
    medium["video_durations"] = torch.tensor([8_100_000])
    return medium


MEDIA = {
    "straddling": lambda speech: long_medium(speech=speech),
    # 20 frames in windows of 4 s: cut by `window_frames`
    "many frames": lambda speech: long_medium(fps=5, speech=speech),
    "silent": lambda speech: video_media((0.5, 3.0, 9.0), 0, 12.0),
    "sound alone": lambda speech: video_media((), 11.0, 11.0, speech=speech),
    "late sound": late_sound,
    "early and overhanging sound": early_and_overhanging_sound,
    "undated": undated,
}
KINDS = {
    **{kind: settings for kind, settings in kinds.KINDS.items() if kind != "joint"},  # which cannot encode ahead
    "one window": {"window_seconds": None, "window_frames": None},
    "add": {"time_fusion": "add"},
}


class TestEncodeVideo:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("name", MEDIA)
    def test_window_by_window_is_what_all_at_once_is(self, name, kind):
        model = tiny_model(**KINDS[kind])
        medium = MEDIA[name]("speech_config" in KINDS[kind])
        memory = encode(model, medium)
        direct = model.get_video_features(**medium).pooler_output[0]
        assert gap(memory.window_tokens, direct) < 1e-5
        assert memory.num_tokens == num_tokens(model, medium)
        frames, columns, speech = dated(medium)
        assert memory.num_frames == len(frames)
        assert memory.audio_seconds == pytest.approx(len(columns) * PATCH_STEP_US / 1e6)
        assert memory.duration == int(medium["video_durations"])
        windows = model.model.layout.plan(frames, columns, memory.duration, speech)
        assert memory.window_times.tolist() == [[window.start, window.end] for window in windows]

    def test_straddling_media_do_straddle(self):
        layout = tiny_model().model.layout
        starts = {start + 3_200_000 for start in (0, 3_200_000)}
        windows = layout.plan(*dated(long_medium())[:2], 8_000_000)
        assert not starts & {window.end for window in windows} and len(windows) > 2
        assert max(len(window.frames) for window in layout.plan(*dated(long_medium(fps=5))[:2], 8_000_000)) == 4

    def test_it_never_holds_more_than_a_window_and_the_sound_that_reaches_into_the_next(self):
        model = tiny_model()
        sizes = []
        model.model.resampler.register_forward_pre_hook(lambda _, args: sizes.append((len(args[0]), len(args[2]))))
        encode(model, long_medium((320,) * 12))  # 38.4 s: ten windows of 3.84 s, 24 columns each
        assert len(sizes) == 20  # cut in two by `window_frames`
        assert max(frames for frames, _ in sizes) == 4
        assert max(columns for _, columns in sizes) <= 24 + 20

    def test_no_graph_is_kept_and_training_towers_are_left_as_they_are(self):
        model = tiny_model(freeze_vision=False).train()
        memory = encode(model, long_medium())
        assert not any(tensor.requires_grad for tensor in memory.tensors.values())
        assert model.training

    def test_a_joint_resampler_cannot_encode_ahead(self):
        with pytest.raises(ValueError, match="question_times='joint'"):
            encode(tiny_model(question_times="joint"), long_medium())

    def test_without_a_processor_there_is_nothing_to_load_one_from(self):
        with pytest.raises(ValueError, match="Pass `processor`"):
            tiny_model().encode_video("video.mp4")


def ask(model, medium, memory, seed=0):
    """Inputs that hold the medium's tensors, and the same with a memory in its place."""
    direct = inputs_for(model, [medium], seeds=[seed])
    kept = ("input_ids", "attention_mask", "query_times", "query_times_mask", "video_durations")
    through = {name: direct[name] for name in kept if name in direct}
    return direct, {**through, "mm_encoder_outputs": {"video": [memory]}}


class TestAskingAMemory:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("name", MEDIA)
    def test_the_answer_is_that_of_the_video_itself(self, name, kind):
        model = tiny_model(**KINDS[kind])
        medium = MEDIA[name]("speech_config" in KINDS[kind])
        memory = encode(model, medium)
        for questions in ([], [1.0], [0.0, 2.5, 7.0]):
            if name == "undated" and questions:
                continue
            if questions:
                medium["query_times"] = torch.tensor([[round(time * 1e6) for time in questions]])
                medium["query_times_mask"] = torch.ones(1, len(questions), dtype=torch.bool)
            direct, through = ask(model, medium, memory)
            assert gap(logits_of(model, direct)[0], logits_of(model, through)[0]) < 1e-4

    def test_generation_through_a_memory(self):
        model = tiny_model()
        medium = long_medium(questions=(1.0, 6.0))
        direct, through = ask(model, medium, encode(model, medium))
        settings = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "suppress_tokens": [97, 98, 99]}
        for extra in ({}, {"num_beams": 3, "num_return_sequences": 2}, {"use_cache": False}):
            expected = model.generate(**direct, **settings, **extra)
            assert torch.equal(model.generate(**through, **settings, **extra), expected)

    def test_memories_and_tensors_in_one_batch(self):
        """Media in text order: a memory, a video as tensors, a memory; the tensors' rows of memories are empty."""
        model = tiny_model()
        media = [long_medium(questions=(1.0,)), video_media(questions=(0.5, 2.0)), video_media((0.5,), 0, 1.0, seed=3)]
        memories = [encode(model, media[0]), None, encode(model, media[2])]
        direct = inputs_for(model, media[:1], media[1:])
        through = dict(direct)
        rows = join_media(*media)
        for index in (0, 2):
            rows["frame_mask"][index] = False
            rows["input_features_mask"][index] = False
        through.update(rows, mm_encoder_outputs={"video": memories})
        for left, right in zip(logits_of(model, direct), logits_of(model, through), strict=True):
            assert gap(left, right) < 1e-4

    def test_question_times_are_read_from_the_memory(self):
        model = tiny_model()
        medium = long_medium(questions=(1.0,))
        memory = encode(model, medium)
        _, through = ask(model, medium, memory)
        before = logits_of(model, through)[0]
        for field in ("pooled_states", "pooled_times"):
            changed = VideoMemory(**{**vars(memory), field: getattr(memory, field) * 2})
            after = logits_of(model, {**through, "mm_encoder_outputs": {"video": [changed]}})[0]
            assert gap(before, after) > 1e-6

    def test_a_memory_in_half_precision(self):
        model = tiny_model().to(torch.bfloat16)
        medium = long_medium(questions=(1.0,))
        memory = encode(model, medium)
        assert memory.window_tokens.dtype == memory.pooled_states.dtype == torch.bfloat16
        direct, through = ask(model, medium, memory)
        assert gap(logits_of(model, direct)[0], logits_of(model, through)[0]) < 0.05
        full = tiny_model()
        _, through = ask(full, medium, encode(full, medium).to(dtype=torch.bfloat16))
        assert torch.isfinite(logits_of(full, through)[0]).all()


class TestFingerprint:
    def change(self, model, name):
        parameter = dict(model.model.named_parameters())[name]
        with torch.no_grad():
            parameter.view(-1)[0] += 1.0

    @pytest.mark.parametrize(
        "name",
        [
            "resampler.queries",
            "resampler.layers.1.mlp.3.weight",
            "temporal_projection.projection.bias",
            "vision_tower.embeddings.patch_embedding.weight",
            "audio_tower.encoder.layer_norm.weight",
        ],
    )
    def test_another_weight_refuses_the_memory(self, name):
        model = tiny_model()
        medium = long_medium()
        _, through = ask(model, medium, encode(model, medium))
        model(**through)
        self.change(model, name)
        with pytest.raises(ValueError, match="encode the video again with `model.encode_video`"):
            model(**through)

    def test_updates_that_autograd_does_not_count_are_seen(self):
        model = tiny_model()
        before = model.model.encoder_fingerprint()
        model.model.resampler.queries.data.add_(1.0)
        assert model.model.encoder_fingerprint() != before

    def test_the_language_model_is_not_part_of_it(self):
        model = tiny_model()
        before = model.model.encoder_fingerprint()
        self.change(model, "language_model.layers.0.mlp.up_proj.weight")
        model.resize_token_embeddings(120)
        assert model.model.encoder_fingerprint() == before

    def test_neither_cast_nor_round_trip_nor_place_changes_it(self, tmp_path):
        model = tiny_model()
        before = model.model.encoder_fingerprint()
        model.save_pretrained(tmp_path)
        loaded = SAVEnVideoForConditionalGeneration.from_pretrained(tmp_path)
        half = SAVEnVideoForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.bfloat16)
        assert loaded.model.encoder_fingerprint() == half.model.encoder_fingerprint() == before
        assert model.to(torch.bfloat16).model.encoder_fingerprint() == before
        assert tiny_model(seed=1).model.encoder_fingerprint() != before

    @pytest.mark.parametrize(
        ("settings", "same"),
        [
            ({"resampler_max_keys": 7, "tower_batch_size": 3, "freeze_vision": False}, True),
            ({"notice": "trained on nothing", "initializer_range": 0.02, "resampler_dropout": 0.1}, True),
            ({"window_seconds": 5.0}, False),
            ({"balance_modalities": False}, False),
            ({"image_mean": (0.4, 0.5, 0.5)}, False),
            ({"time_periods": [float(period) for period in range(1, 34)]}, False),
        ],
    )
    def test_settings_that_change_tokens_change_it(self, settings, same):
        before, after = tiny_model(), tiny_model(**settings)
        after.load_state_dict(before.state_dict())
        assert (before.model.encoder_fingerprint() == after.model.encoder_fingerprint()) == same


class TestFile:
    def memory(self):
        return encode(tiny_model(), long_medium())

    def test_round_trip(self, tmp_path):
        memory = self.memory()
        memory.save(tmp_path / "video.safetensors")
        loaded = VideoMemory.load(tmp_path / "video.safetensors")
        assert vars(loaded).keys() == vars(memory).keys()
        for name, value in vars(memory).items():
            other = getattr(loaded, name)
            if isinstance(value, torch.Tensor):
                assert other.dtype == value.dtype and torch.equal(other, value)
            else:
                assert other == value and type(other) is type(value)
        assert loaded.is_video_memory and loaded.num_tokens == memory.num_tokens
        assert loaded.nbytes == memory.nbytes == sum(t.numel() * t.element_size() for t in memory.tensors.values())

    def test_to_casts_floats_and_leaves_times(self):
        memory = self.memory()
        half = memory.to("cpu", torch.bfloat16)
        assert half.window_tokens.dtype == half.pooled_states.dtype == torch.bfloat16
        assert torch.equal(half.pooled_times, memory.pooled_times) and half.pooled_times.dtype == torch.int64
        assert half.encoder_hash == memory.encoder_hash and memory.window_tokens.dtype == torch.float32
        assert torch.equal(memory.to("cpu").window_tokens, memory.window_tokens)

    def test_files_that_are_no_memory(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="missing"):
            VideoMemory.load(tmp_path / "missing")
        for name, content in (("empty", b""), ("text", b"not a memory"), ("zeros", bytes(100))):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(ValueError, match="not a safetensors file"):
                VideoMemory.load(tmp_path / name)
        save_file({"weight": torch.zeros(2)}, tmp_path / "weights")
        with pytest.raises(ValueError, match="has the format None"):
            VideoMemory.load(tmp_path / "weights")
        save_file({"weight": torch.zeros(2)}, tmp_path / "future", metadata={"format": "savenvideo-memory-2"})
        with pytest.raises(ValueError, match="savenvideo-memory-2.*encode the video again"):
            VideoMemory.load(tmp_path / "future")

    def test_a_truncated_file(self, tmp_path):
        path = tmp_path / "video"
        self.memory().save(path)
        path.write_bytes(path.read_bytes()[:-10])
        with pytest.raises(ValueError, match="not a safetensors file"):
            VideoMemory.load(path)

    def test_nothing_is_half_written(self, tmp_path, monkeypatch):
        memory = self.memory()
        path = tmp_path / "video"
        memory.save(path)
        before = path.read_bytes()

        def fail(tensors, filename, metadata):
            with open(filename, "wb") as file:
                file.write(b"half of it")
            raise OSError("disk full")

        monkeypatch.setattr(f"{VideoMemory.__module__}.save_file", fail)
        with pytest.raises(OSError, match="disk full"):
            memory.save(path)
        assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == ["video"]

    def test_the_header_is_readable_without_this_package(self, tmp_path):
        self.memory().save(tmp_path / "video")
        content = (tmp_path / "video").read_bytes()
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
        assert header["format"] == "savenvideo-memory-1" and json.loads(header["header"])["duration"] == 8_000_000
