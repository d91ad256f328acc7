"""Rows to batches: labels on the assistant's words alone, weights, parts and clocks of media, errors that help."""

import time

import numpy as np
import pytest
import torch
from clip import render
from hypothesis import given, settings
from hypothesis import strategies as st
from small import feature_rows, features_of, small_model, talk

from saven_hf.data.messages import DataError, attach_media
from saven_hf.savenvideo.media_errors import MediaError
from saven_hf.savenvideo.times import format_time, parse_times
from saven_hf.training.collator import SAVEnVideoCollator
from saven_hf.training.media import move_clock, take_part


MODEL, PROCESSOR = small_model()
VIDEO = {"type": "video"}


def collate(rows, **kwargs):
    return SAVEnVideoCollator(PROCESSOR, **kwargs)(rows)


def learnt(batch, row=0):
    """What the row's labels say, answer by answer."""
    labels = batch["labels"][row]
    starts = torch.nonzero((labels != -100) & (torch.roll(labels, 1) == -100))[:, 0].tolist()
    answers = []
    for start in starts:
        tokens = []
        while start < len(labels) and labels[start] != -100:
            tokens.append(labels[start].item())
            start += 1
        answers.append(PROCESSOR.decode(tokens))
    return answers


def text_of(batch, row=0):
    """The prompt, placeholders once."""
    ids = batch["input_ids"][row][batch["attention_mask"][row].bool()]
    text = PROCESSOR.decode(ids)
    while "<|video|><|video|>" in text:
        text = text.replace("<|video|><|video|>", "<|video|>")
    return text


class TestLabels:
    def test_of_several_turns_and_several_media(self):
        rows = feature_rows(MODEL, PROCESSOR, 3, media=(1, 0, 2), turns=3)
        batch = collate(rows)
        for at, row in enumerate(rows):
            answers = [message["content"] for message in row["messages"] if message["role"] == "assistant"]
            assert learnt(batch, at) == [f"{answer}<|im_end|>" for answer in answers]
        assert torch.equal(batch["labels"] != -100, batch["loss_weights"] > 0)
        kept = batch["labels"] != -100
        assert torch.equal(batch["labels"][kept], batch["input_ids"][kept])
        assert len(batch["mm_encoder_outputs"]["video"]) == 3
        # Right padding.
        assert torch.equal(batch["attention_mask"].sort(dim=1, descending=True).values, batch["attention_mask"])

    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.tuples(st.text(max_size=12), st.text(max_size=12), st.integers(0, 2)), min_size=1, max_size=4))
    def test_whatever_is_said(self, turns):
        """Any text between any media: what is learnt is what was said, to the letter."""
        features = features_of(MODEL, PROCESSOR)
        messages, videos = [], []
        for question, answer, count in turns:
            messages += talk(question, answer, *[VIDEO] * count)
            videos += [features] * count
        batch = collate([{"messages": messages, "videos": videos}])
        said = [f"{answer}<|im_end|>" for _, answer, _ in turns]
        assert learnt(batch) == [PROCESSOR.decode(PROCESSOR.tokenizer(text)["input_ids"]) for text in said]

    def test_the_labels_are_those_of_transformers(self):
        """Its own mask of the assistant's tokens, but for the newline behind the end of a turn."""
        row = feature_rows(MODEL, PROCESSOR, 1, turns=2)[0]
        row["messages"].insert(0, {"role": "system", "content": "Be brief."})
        batch = collate([row])
        inputs = PROCESSOR.apply_chat_template(
            [attach_media(row)],
            tokenize=True,
            return_dict=True,
            return_assistant_tokens_mask=True,
            return_tensors="pt",
        )
        assert torch.equal(inputs["input_ids"], batch["input_ids"])
        assert torch.equal(inputs["query_times"], batch["query_times"])
        mask = inputs["assistant_masks"].bool() & (inputs["input_ids"] != PROCESSOR.tokenizer("\n")["input_ids"][0])
        assert torch.equal(mask, batch["labels"] != -100)

    def test_question_times_come_from_the_user(self):
        messages = [{"role": "system", "content": "It ends at 00:00:05."}, *talk("At 00:00:01?", "00:00:02", VIDEO)]
        messages += talk("And at 00:00:03?", "00:00:04")
        batch = collate([{"messages": messages, "videos": [features_of(MODEL, PROCESSOR)]}])
        assert batch["query_times"].tolist() == [[1_000_000, 3_000_000]]

    def test_weights(self):
        row = {"messages": talk("a", "xy") + talk("b", "wxyz"), "weight": 3.0}
        assert collate([row])["loss_weights"].sum() == pytest.approx(3 * (3 + 5))
        batch = collate([row], loss_weighting="turn")
        assert batch["loss_weights"].sum() == pytest.approx(3 * 2)
        weights = batch["loss_weights"][batch["loss_weights"] > 0]
        assert weights.tolist() == pytest.approx([1.0] * 3 + [0.6] * 5)

    def test_a_template_without_marks_is_refused(self):
        _, processor = small_model()
        template = processor.chat_template.replace("generation", "if true", 1).replace("endgeneration", "endif", 1)
        processor.chat_template = template
        with pytest.raises(DataError, match="marks 0 answers of a row that has 1"):
            SAVEnVideoCollator(processor)([{"messages": talk("a", "b")}])
        # Marks around the words alone would leave the end of the turn unlearnt.
        _, processor = small_model()
        marked = "{{- render(message.content) ~ '<|im_end|>\\n' -}}\n        {%- endgeneration -%}"
        assert marked in processor.chat_template
        processor.chat_template = processor.chat_template.replace(
            marked, "{{- render(message.content) -}}\n        {%- endgeneration -%}{{- '<|im_end|>\\n' -}}"
        )
        with pytest.raises(DataError, match="without the <|im_end|>"):
            SAVEnVideoCollator(processor)([{"messages": talk("a", "b")}])


class TestErrors:
    def test_media_and_blocks_that_do_not_match(self):
        features = features_of(MODEL, PROCESSOR)
        with pytest.raises(DataError, match="2 bare video blocks and 1 entries"):
            collate([{"messages": talk("?", "!", VIDEO, VIDEO), "videos": [features]}])
        with pytest.raises(ValueError, match="should be the same as the number of video inputs"):
            collate([{"messages": talk("<|video|>?", "!", VIDEO), "videos": [features]}])
        said = [{"role": "user", "content": "?"}, {"role": "assistant", "content": [VIDEO]}]
        with pytest.raises(DataError, match="in the assistant's turn"):
            collate([{"messages": said, "videos": [features]}])

    def test_a_long_row(self):
        with pytest.raises(DataError, match="tokens, more than max_length=20"):
            collate([{"messages": talk("a" * 40, "b")}], max_length=20)

    def test_bad_rows_may_be_left_out(self, caplog):
        good, bad = {"messages": talk("a", "b")}, {"messages": talk("a", "b", VIDEO), "videos": ["no.mp4"], "id": "7"}
        with pytest.raises(MediaError):
            collate([good, bad])
        assert len(collate([good, bad, good], skip_bad_rows=True)["input_ids"]) == 2
        assert "left out row 7" in caplog.text and "no.mp4" in caplog.text
        with pytest.raises(DataError, match="No row of a batch of 1"):
            collate([bad], skip_bad_rows=True)

    def test_an_unknown_weighting(self):
        with pytest.raises(ValueError, match="must be one of"):
            SAVEnVideoCollator(PROCESSOR, loss_weighting="answer")


class TestTimeShift:
    ROW = {"messages": talk("From 00:00:01.500 to 00:00:02.000?", "a circle from 00:00:01.500", VIDEO)}

    def row(self):
        return {**self.ROW, "videos": [features_of(MODEL, PROCESSOR)]}

    def offset(self, batch):
        return batch["query_times"][0, 0].item() - 1_500_000

    def test_clock_and_text_move_together(self):
        batch = collate([{"row": self.row(), "index": 5}], time_shift_seconds=20.0)
        offset = self.offset(batch)
        assert 0 < offset <= 20_000_000 and offset % 100_000 == 0
        shown = f"From {format_time(1_500_000 + offset)} to {format_time(2_000_000 + offset)}?"
        assert shown in text_of(batch)
        assert learnt(batch) == [f"a circle from {format_time(1_500_000 + offset)}<|im_end|>"]
        moved, still = batch["mm_encoder_outputs"]["video"][0], features_of(MODEL, PROCESSOR)
        assert torch.equal(moved.frame_times, still.frame_times + offset)
        assert torch.equal(moved.column_times, still.column_times + offset)
        assert moved.duration == still.duration + offset

    def test_is_the_same_for_the_same_seed_epoch_and_row(self):
        def draw(seed=0, epoch=0, index=5):
            collator = SAVEnVideoCollator(PROCESSOR, time_shift_seconds=500.0, seed=seed)
            collator.epoch = epoch
            return self.offset(collator([{"row": self.row(), "index": index}]))

        assert draw() == draw()
        assert len({draw(), draw(seed=1), draw(epoch=1), draw(index=6)}) == 4
        # In any order, among any others.
        collator = SAVEnVideoCollator(PROCESSOR, time_shift_seconds=500.0)
        both = collator([{"row": self.row(), "index": index} for index in (6, 5)])
        assert both["query_times"][1, 0] - 1_500_000 == draw()

    def test_covers_its_range(self):
        collator = SAVEnVideoCollator(PROCESSOR, time_shift_seconds=0.2)
        found = {self.offset(collator([{"row": self.row(), "index": index}])) for index in range(40)}
        assert found == {0, 100_000, 200_000}

    def test_text_that_cannot_be_moved_holds_the_clock(self):
        row = {**self.row(), "messages": talk("At 00:00:01.500, for 2 s?", "yes", VIDEO)}
        for index in range(8):
            batch = collate([{"row": row, "index": index}], time_shift_seconds=20.0)
            assert self.offset(batch) == 0 and "for 2 s" in text_of(batch)

    def test_of_files_in_memory_and_sounds(self, tmp_path):
        render(tmp_path / "clip.mp4")
        settings = {"num_frames": 3}
        still = PROCESSOR(videos=str(tmp_path / "clip.mp4"), **settings)
        moved = PROCESSOR(
            videos=move_clock(str(tmp_path / "clip.mp4"), "video", 2_000_000, PROCESSOR, settings), **settings
        )
        assert torch.equal(moved["pixel_values_videos"], still["pixel_values_videos"])
        assert torch.equal(moved["frame_times"], still["frame_times"] + 2_000_000)
        assert torch.equal(moved["audio_times"], still["audio_times"] + 2_000_000)
        assert torch.equal(moved["input_features"], still["input_features"])
        assert moved["video_durations"] == still["video_durations"] + 2_000_000
        sound = move_clock(str(tmp_path / "clip.mp4"), "audio", 500_000, PROCESSOR, settings)
        moved = PROCESSOR(videos=sound)
        assert (
            "pixel_values_videos" not in moved and moved["audio_times"][0, 0] == still["audio_times"][0, 0] + 500_000
        )

    def test_media_without_a_clock_are_refused(self):
        with pytest.raises(DataError, match="have no clock"):
            move_clock({"frames": torch.zeros(2, 3, 28, 28, dtype=torch.uint8)}, "video", 1, PROCESSOR, {})
        memory = MODEL.encode_video(
            {"frames": torch.zeros(2, 3, 28, 28, dtype=torch.uint8), "frame_times": [0, 1]}, PROCESSOR
        )
        with pytest.raises(DataError, match="VideoMemory cannot move"):
            move_clock(memory, "video", 1, PROCESSOR, {})


class TestParts:
    def test_of_features(self):
        features = features_of(MODEL, PROCESSOR)  # frames at 0.75, 2.25, 3.75 and 5.25 s
        part = take_part(features, 1.0, 4.0)
        assert part.frame_times.tolist() == [2_250_000, 3_750_000] and len(part.picture) == 2
        assert 1_000_000 <= part.column_times.min() and part.column_times.max() < 4_000_000
        assert part.duration == features.duration  # the clock is that of the whole
        assert torch.equal(take_part(features, 3.0, None).picture, features.picture[2:])
        with pytest.raises(DataError, match="nothing from 7.0 s"):
            take_part(features, 7.0, None)
        with pytest.raises(DataError, match="not of a Tensor"):
            take_part(torch.zeros(2, 3, 28, 28), 0.0, 1.0)

    def test_of_a_row(self):
        row = {"messages": talk("?", "!", VIDEO), "videos": [features_of(MODEL, PROCESSOR)], "start": 1.0, "end": 4.0}
        assert collate([row])["mm_encoder_outputs"]["video"][0].frame_times.tolist() == [2_250_000, 3_750_000]

    def test_of_a_file(self, tmp_path):
        render(tmp_path / "clip.mp4")
        row = {"messages": talk("?", "!", VIDEO), "videos": [str(tmp_path / "clip.mp4")], "start": 4.0, "end": 6.0}
        batch = collate([row], video={"num_frames": 3})
        assert ((batch["frame_times"] >= 4_000_000) & (batch["frame_times"] < 6_000_000)).all()
        assert batch["video_durations"].item() > 11_000_000
        # And on another clock.
        collator = SAVEnVideoCollator(PROCESSOR, video={"num_frames": 3}, time_shift_seconds=100.0)
        moved = collator([{"row": row, "index": 3}])
        offset = moved["video_durations"] - batch["video_durations"]
        assert offset > 0 and torch.equal(moved["frame_times"], batch["frame_times"] + offset)


class TestMedia:
    def test_files_arrays_and_features_in_one_batch(self, tmp_path):
        render(tmp_path / "clip.mp4")
        arrays = {"frames": torch.zeros(2, 3, 28, 28, dtype=torch.uint8), "frame_times": [0.0, 1.0]}
        rows = [
            {"messages": talk("?", "!", VIDEO), "videos": [str(tmp_path / "clip.mp4")]},
            {"messages": talk("?", "!", {"type": "video", "video": arrays})},
            {"messages": talk("?", "!", VIDEO), "videos": [features_of(MODEL, PROCESSOR)]},
            {"messages": talk("?", "!", {"type": "audio"}), "audios": [str(tmp_path / "clip.mp4")]},
            {"messages": talk("?", "!")},
        ]
        batch = collate(rows, video={"num_frames": 3})
        assert batch["frame_mask"].sum(1).tolist() == [3, 2, 0, 0]
        inputs = {name: batch[name] for name in batch if name not in ("labels", "loss_weights")}
        with torch.no_grad():
            assert torch.isfinite(MODEL(**inputs).logits).all()

    def test_without_the_sound_of_videos(self, tmp_path):
        render(tmp_path / "clip.mp4")
        rows = [
            {"messages": talk("?", "!", VIDEO), "videos": [str(tmp_path / "clip.mp4")]},
            {"messages": talk("?", "!", VIDEO), "videos": [features_of(MODEL, PROCESSOR)]},
        ]
        batch = collate(rows, use_audio=False)
        assert "input_features" not in batch and len(batch["mm_encoder_outputs"]["video"][1].column_times) == 0


def test_a_row_takes_about_a_millisecond():
    """80 media tokens and 6 turns. On one core; the limit leaves room for a busy machine."""
    rows = feature_rows(MODEL, PROCESSOR, 16, turns=6)
    collator = SAVEnVideoCollator(PROCESSOR, time_shift_seconds=10.0)
    took = []
    for _ in range(5):
        start = time.perf_counter()
        batch = collator([{"row": row, "index": at} for at, row in enumerate(rows)])
        took.append((time.perf_counter() - start) / len(rows))
    assert np.min(took) < 0.02, f"{np.min(took) * 1e3:.1f} ms a row"
    assert batch["labels"].ne(-100).any(1).all()


@given(st.integers(0, 10_000_000_000), st.integers(0, 1_000_000_000), st.integers(0, 1_000))
def test_moved_text_names_moved_times(first, second, steps):
    from saven_hf.savenvideo.times import shift_times

    first, second, offset = first // 1000 * 1000, second // 1000 * 1000, steps * 100_000
    text = f"from {format_time(first)} to {format_time(second)}, at 4:3"
    assert parse_times(shift_times(text, offset)) == [time + offset for time in parse_times(text)]
