"""The endpoint annotator against a real server on loopback, good and bad."""

import time

import pytest
from openai_server import good_reply, serving

from saven_hf.pipeline import build_dataset
from saven_hf.pipeline.annotators.endpoint import EndpointAnnotator
from saven_hf.pipeline.annotators.prompted import Request
from saven_hf.pipeline.errors import AnnotatorError, ReplyError, ServiceError
from saven_hf.pipeline.stages import Settings, VideoTask, Work, Worker
from saven_hf.pipeline.templates import Prompt, Prompts


datasets = pytest.importorskip("datasets", reason="datasets are written by the datasets library")


def request(text="Hello?", **more):
    return Request("text", Prompt("S", text), **more)


def annotator(server, **options):
    return EndpointAnnotator(server.url, "m", **({"timeout": 60.0, "retries": 3} | options))


@pytest.mark.parametrize("fault", ["malformed", "other json", "hang up", 429, 500, 503])
def test_a_fault_is_tried_again(fault):
    with serving(lambda body: "Yes.") as server:
        server.faults = [fault]
        asked = annotator(server)
        assert asked.complete([request()]) == ["Yes."]
        assert len(server.requests) == 2 and asked.usage()["retries"] == 1
        asked.close()


def test_a_late_answer_is_given_up_and_asked_for_again():
    with serving(lambda body: "Yes.") as server:
        server.faults = ["late"]
        asked = annotator(server, timeout=1.0, retries=20)  # on a busy machine, others may be late as well
        assert asked.complete([request()]) == ["Yes."]
        assert asked.usage()["timeouts"] >= 1 and len(server.requests) >= 2
        asked.close()


def test_the_server_says_how_long_to_wait():
    with serving(lambda body: "Yes.") as server:
        server.faults = [429]
        asked = annotator(server)
        started = time.perf_counter()
        asked.complete([request()])
        assert time.perf_counter() - started > 0.2
        asked.close()


def test_empty_and_cut_off_replies_are_told_and_not_used():
    with serving(lambda body: "A long answer.") as server:
        server.faults = ["empty", "truncated"]
        asked = annotator(server, concurrency=1)
        replies = asked.complete([request(), request()])
        assert all(isinstance(reply, ReplyError) for reply in replies)
        assert "empty" in str(replies[0]) and "cut off" in str(replies[1])
        assert {"empty": 1.0, "truncated": 1.0}.items() <= asked.usage().items()
        asked.close()


def test_a_request_that_fails_for_good_is_one_error_and_a_server_that_is_gone_another():
    with serving(lambda body: "Yes.") as server:
        asked = annotator(server, retries=1)
        server.faults = [500, 500]
        with pytest.raises(AnnotatorError, match="HTTP 500"):
            asked.complete([request()])
        server.faults = [400]
        with pytest.raises(AnnotatorError, match="answers 400"):
            asked.complete([request()])
        server.faults = [401]
        with pytest.raises(ServiceError, match="refuses the key"):
            asked.complete([request()])
        asked.close()
    gone = EndpointAnnotator("http://127.0.0.1:9/v1", "m", retries=0)
    with pytest.raises(ServiceError, match="no connection"):
        gone.complete([request()])
    gone.close()


def test_no_more_requests_at_once_than_asked_for_and_tokens_are_counted(monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret")
    with serving(lambda body: "Yes.", delay=0.05) as server:
        asked = annotator(server, concurrency=3, price_in=2.0, price_out=10.0, key="MY_KEY", extra={"top_k": 1})
        assert asked.complete([request()] * 12) == ["Yes."] * 12
        assert server.most_at_once == 3
        used = asked.usage()
        assert (used["calls"], used["prompt_tokens"], used["completion_tokens"]) == (12, 1200, 120)
        assert used["cost"] == pytest.approx((1200 * 2 + 120 * 10) / 1e6)
        assert server.headers[0]["authorization"] == "Bearer secret" and server.requests[0]["top_k"] == 1
        assert "secret" not in repr(asked.settings)
        asked.close()


def test_bad_options():
    for options in ({}, {"base_url": "http://a/v1"}, {"base_url": "localhost:80", "text_model": "m"}):
        with pytest.raises(AnnotatorError):
            EndpointAnnotator(**options)
    with pytest.raises(AnnotatorError):
        EndpointAnnotator("http://a/v1", "m", concurrency=0)


# -------------------------------------------------------------------------------------------------------- whole videos


def run(server, path, work, **options):
    asked = annotator(server, frames=2, longest_side=64, **options)
    worker = Worker(Settings("endpoint"), Work(work), annotator=asked)
    row = worker.run_video(VideoTask(path.stem, str(path), path.name))
    asked.close()
    return row


def test_a_video_through_all_stages_with_every_fault_once(clip_path, tmp_path):
    with serving(good_reply) as server:
        server.faults = [429, 500, "malformed", "empty", "truncated", "other json", "hang up"]
        row = run(server, clip_path, tmp_path)
    assert [one["question_type"] for one in row["questions"]] == [
        "global", "global", "timestamped", "timestamped", "time_range",
    ]  # fmt: skip
    assert row["segments"][0]["av_caption"].startswith("From 00:00:00.000 to 00:00:02.960: While a red shape")
    timed = row["questions"][2]
    assert timed["evidence"] == [[0.0, 2.96]]
    assert row["questions"][3]["evidence"] == [[0.0, 3.0]]  # "At 00:00:00.000": all of that segment
    for one in row["questions"]:
        assert sorted(one["options"]) == sorted(set(one["options"])) and len(one["options"]) == 4
        assert one["checks"]["format"]["passed"], one["checks"]["format"]
        # A model that always says B is right in one of four orders.
        assert one["checks"]["leakage"] == {"passed": True, "score": 0.25, "detail": "by the annotator's model"}
        assert one["checks"]["consistency"] == {"passed": False, "score": 0.25, "detail": "by the annotator's model"}
    kinds = [body["messages"][-1]["content"] for body in server.requests]
    images = [content for content in kinds if isinstance(content, list) and content[0]["type"] == "image_url"]
    assert all(len(content) == 3 for content in images)  # two frames and the text


def test_long_sound_is_captioned_in_pieces_that_are_merged(clip_path, tmp_path, monkeypatch):
    monkeypatch.setattr("saven_hf.pipeline.annotators.prompted.AUDIO_SECONDS", 1.0)
    asked = []

    def reply(body):
        content = body["messages"][-1]["content"]
        if isinstance(content, list) and content[0]["type"] == "input_audio":
            asked.append("piece")
            return f"Piece {asked.count('piece')} hums."
        if "pieces that follow each other" in content:
            asked.append(content)
            if sum("each other" in one for one in asked) == 1:
                return "A low tone hums, perhaps."  # a guess: to be asked for again
            return "A low tone hums all the time."
        return good_reply(body)

    with serving(reply) as server:
        row = run(server, clip_path, tmp_path, concurrency=1)
    # Clips of 3 s in pieces of at most 1 s: each heard apart, then told as one.
    assert asked.count("piece") == 12
    merges = [one for one in asked if one != "piece" and "This cannot be used" not in one]
    assert len(merges) == 4 and all(f"Piece {at}: Piece" in merges[0] for at in (1, 2, 3))
    assert any("'perhaps' is a guess" in one for one in asked)
    assert {one["audio_caption"] for one in row["segments"]} == {"A low tone hums all the time."}


def test_a_video_of_three_segments_has_no_question_on_a_range_and_it_is_said(clip_path, tmp_path, caplog):
    with serving(good_reply) as server:
        asked = annotator(server, frames=2, longest_side=64)
        worker = Worker(Settings("endpoint", max_clips=3), Work(tmp_path), annotator=asked)
        row = worker.run_video(VideoTask(clip_path.stem, str(clip_path), clip_path.name))
        asked.close()
    assert [one["question_type"] for one in row["questions"]] == ["global"] * 2 + ["timestamped"] * 2
    assert "no question asks for a range of time" in caplog.text


def test_a_build_says_what_it_spent(clip_path, tmp_path):
    with serving(good_reply) as server:
        options = {"base_url": server.url, "text_model": "m", "frames": 2, "longest_side": 64, "price_out": 10.0}
        result = build_dataset([clip_path], tmp_path / "out", Settings("endpoint", options), progress=False)
    assert result["usage"]["calls"] == len(server.requests) > 20
    rows = datasets.load_dataset(
        str(tmp_path / "out"), "qa", split="train", cache_dir=str(tmp_path / "cache"), columns=["provenance"]
    )
    assert len(rows) == 5
    for row in rows:
        assert row["provenance"]["prompt_hashes"] == Prompts().hashes_of()
        assert row["provenance"]["models"] == ["change-0.05-1-0.7", "m"]
    assert result["usage"]["cost"] == pytest.approx(10 * len(server.requests) * 10 / 1e6)
    assert result["questions"] == 5


def test_a_reply_that_breaks_a_rule_is_asked_for_again_with_what_is_wrong(clip_path, tmp_path):
    told = []

    def reply(body):
        text = body["messages"][-1]["content"]
        if isinstance(text, str) and "This cannot be used" in text:
            told.append(text)
            return good_reply({**body, "messages": [{"content": text.partition("\n\nYou answered")[0]}]})
        if isinstance(text, str) and "Write five different" in text:
            return good_reply(body).replace(
                "Question 5: In which range", "Question 5: At 00:00:01.000, in which range"
            )
        return good_reply(body)

    with serving(reply) as server:
        assert len(run(server, clip_path, tmp_path)["questions"]) == 5
    assert len(told) == 1 and "- Question 5 names a time: its options will be the times." in told[0]


def test_a_model_that_never_keeps_the_rules_puts_the_video_aside_whole(clip_path, tmp_path):
    with serving(lambda body: "Sure, maybe something.") as server:
        assert run(server, clip_path, tmp_path) is None
    failed = Work(tmp_path).read("failed", clip_path.stem)
    assert failed["stage"] == "caption" and "broke the rules 3 times" in failed["reason"]
    assert not Work(tmp_path).has("caption", clip_path.stem)


def test_a_server_that_goes_away_stops_the_run_and_keeps_what_is_done(clip_path, tmp_path):
    with serving(good_reply) as server:
        url = server.url
    asked = EndpointAnnotator(url, "m", retries=0)
    worker = Worker(Settings("endpoint"), Work(tmp_path), annotator=asked)
    with pytest.raises(ServiceError):
        list(worker.run([VideoTask("four", str(clip_path), clip_path.name)]))
    asked.close()
    assert Work(tmp_path).has("segment", "four") and not Work(tmp_path).has("failed", "four")
