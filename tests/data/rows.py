"""Valid rows of SAVEn-Vid to start from."""

from saven_hf.data.schema import NOT_CHECKED


PROVENANCE = {"models": ["signal"], "prompt_hashes": ["question.jinja=0a1b"], "code_version": "1"}


def video(content=b"not decoded here"):
    return {"bytes": content, "path": None}


def qa_row(**changes):
    row = {
        "id": "a-1",
        "video_id": "a",
        "video": video(),
        "media": None,
        "duration": 60.0,
        "question": "What is heard while the lights go out?",
        "options": ["Rain", "A bell", "Nothing", "Steps"],
        "answer": "B",
        "question_type": "global",
        "category": "recognition",
        "audio_type": "music",
        "evidence": [[3.0, 9.5]],
        "checks": dict(NOT_CHECKED),
        "source": "own",
        "provenance": PROVENANCE,
    }
    return row | changes


def caption_row(**changes):
    row = {
        "video_id": "a",
        "segment": 0,
        "start": 0.0,
        "end": 9.5,
        "visual_caption": "The lights go out.",
        "audio_caption": "A bell rings.",
        "av_caption": "From 00:00:00.000 to 00:00:09.460, the lights go out and a bell rings.",
        "transcript": None,
    }
    return row | changes


def video_row(**changes):
    row = {
        "video_id": "a",
        "video": video(),
        "media": None,
        "duration": 60.0,
        "visual_caption": "From 00:00:00.000 to 00:00:09.460, the lights go out.",
        "audio_caption": "From 00:00:03.000 to 00:00:09.460, a bell rings.",
        "av_caption": "From 00:00:00.000 to 00:00:09.460, the lights go out and a bell rings.",
        "source": "own",
        "provenance": PROVENANCE,
    }
    return row | changes


def sft_row(**changes):
    row = {
        "id": "a-sft-0",
        "video_id": "a",
        "messages": [
            {"role": "user", "content": [{"type": "video", "text": None}, {"type": "text", "text": "What is heard?"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "A bell, at 00:00:03.000."}]},
        ],
        "videos": [video()],
        "media": None,
        "start": None,
        "end": None,
        "kind": "question",
        "source": "own",
        "provenance": PROVENANCE,
    }
    return row | changes


def world_row(**changes):
    own = {
        "answer_text": "A bell",
        "checks": {"family": "with", "needs": "both", "chance": None},
        "provenance": {**PROVENANCE, "seed": 7, "split": "train"},
    }
    return qa_row() | own | changes


ROWS = {"qa": qa_row, "captions": caption_row, "videos": video_row, "sft": sft_row, "world": world_row}
