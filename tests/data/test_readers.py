"""Readers of published annotation files, on files of exactly the published form; what they tell is made up."""

import json
import logging
from pathlib import Path

import pytest

from saven_hf.data import annotations as published
from saven_hf.data.messages import DataError, MissingMediaError, check_row
from saven_hf.data.readers import READERS, open_reader


ID, OTHER = "aB3-_xyzQ01", "-0therVide0"  # as YouTube's: 11 letters, which may begin with "-"


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


# One file of each dataset in its published form, and the media that it speaks of, named as is usual.
LCS = json.dumps(
    [
        {
            "id": "000000017",
            "image": "00000/000000017.jpg",
            "conversations": [
                {"from": "human", "value": "What is in the photo, in short?\n<image>"},
                {"from": "gpt", "value": "three pears on a blue plate"},
            ],
        },
        {
            "id": "000000023",
            "image": "00000/000000023.jpg",
            "conversations": [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "a bridge"}],
        },
    ]
)
PANDA = (
    "videoID,url,timestamp,caption,matching_score,desirable_filtering,shot_boundary_detection\n"
    f"{ID},https://www.youtube.com/watch?v={ID},"
    "\"[['0:00:10.760', '0:00:17.633'], ['1:02:31.151', '1:02:34.320']]\","
    '"[\'A man\'\'s ""kite"" is in the air.\', ""It\'s a boat, on a lake.""]","[0.45, 0.51]",'
    "\"['desirable', 'desirable']\",\"[[['0:00:00.000', '0:00:06.873']], [['0:00:00.000', '0:00:03.169']]]\"\n"
).replace("''", "\\'")
AUDIOSET = (
    "# Segments csv created Sun Mar  5 10:54:25 2017\n"
    "# num_ytids=2, num_segs=2, num_unique_labels=3, num_positive_labels=3\n"
    "# YTID, start_seconds, end_seconds, positive_labels\n"
    f'{OTHER}, 30.000, 40.000, "/m/09x0r,/t/dd00088"\n'
    f'{ID}, 0.000, 8.500, "/m/05zppz"\n'
)
LABELS = (
    'index,mid,display_name\n0,/m/09x0r,"Speech"\n1,/m/05zppz,"Male speech, man speaking"\n506,/t/dd00088,"Gush"\n'
)
AUDIOCAPS = f'audiocap_id,youtube_id,start_time,caption\n91001,{ID},130,"Rain falls, then a door shuts"\n'
AUTOACD = (
    f'youtube_id,caption\n{ID}_000117,"Wind blows over a field, and a gate creaks."\nY{OTHER},A tap drips.\n'
    f'{OTHER}_000003,"The audio caption could be: ""A bell rings."""\n'
)
VIDEOINSTRUCT = json.dumps([{"q": "What is built?", "a": "A shed.\n\nThen a fence.", "video_id": f"v_{ID}"}])
INTERNVID = (
    json.dumps(
        {
            "YoutubeID": ID,
            "Start_timestamp": "00:01:51.578",
            "End_timestamp": "00:01:53.647",
            "Caption": "a fox under a hedge",
            "Aesthetic_Score": 4.5,
            "UMT_Score": 0.41,
        }
    )
    + "\n"
)
VGGSOUND = f"{OTHER},1,frog croaking,test\n{ID},30,pouring tea,train\n"

FILES = {
    "lcs558k": ("blip_laion_cc_sbu_558k.json", LCS, ["00000/000000017.jpg", "00000/000000023.jpg"]),
    "panda70m": ("panda70m_training_2m.csv", PANDA, [f"{ID}.mp4"]),
    "audioset": ("eval_segments.csv", AUDIOSET, [f"{OTHER}.flac", f"{ID}.m4a"]),
    "audiocaps": ("train.csv", AUDIOCAPS, [f"{ID}.wav"]),
    "autoacd": ("train.csv", AUTOACD, [f"{ID}_000117.wav", f"Y{OTHER}.wav", f"{OTHER}.mp4"]),
    "videoinstruct100k": ("VideoInstruct100K.json", VIDEOINSTRUCT, [f"v_{ID}.mkv"]),
    "internvid": ("InternVid-10M-flt.jsonl", INTERNVID, [f"{ID}.webm"]),
    "vggsound": ("vggsound.csv", VGGSOUND, [f"{ID}_000030.mp4"]),
}


@pytest.fixture
def dataset(tmp_path):
    """Writes a dataset's files (annotations may be replaced, media named otherwise) and opens it."""

    def opened(name: str, text: str | None = None, media: list[str] | None = None, **options):
        file, published_text, usual = FILES[name]
        path = write(tmp_path / name / file, published_text if text is None else text)
        write(tmp_path / name / "class_labels_indices.csv", LABELS)
        touch(tmp_path / name / "media", *(usual if media is None else media), "other.txt")
        return open_reader(name, annotations=path, media=tmp_path / name / "media", **options)

    return opened


def texts(row: dict) -> list[str]:
    """The texts of a row's turns; the first turn is a medium and a text."""
    first, *rest = row["messages"]
    assert [block["type"] for block in first["content"]] == [row_kind(row), "text"]
    return [first["content"][1]["text"], *(message["content"] for message in rest)]


def row_kind(row: dict) -> str:
    (kind,) = (kind for kind in ("video", "image", "audio") if f"{kind}s" in row)
    return kind


def media(row: dict) -> str:
    (path,) = row[f"{row_kind(row)}s"]
    return Path(path).name


# ------------------------------------------------------------------------------------------------ each of the datasets


@pytest.mark.parametrize("name", READERS)
def test_every_row_is_one_that_can_be_trained_on(name, dataset):
    reader = dataset(name)
    rows = list(reader)
    assert rows == list(reader)  # reading again gives the same, wordings included
    assert rows and reader.counts["rows"] == len(rows)
    assert len({row["id"] for row in rows}) == len(rows)
    for row in rows:
        check_row(row)
        assert row_kind(row) == READERS[name].kind and row["source"] == READERS[name].title
        assert all(Path(path).is_file() for path in row[f"{row_kind(row)}s"])


def test_lcs558k(dataset):
    first, second = dataset("lcs558k")
    assert texts(first) == ["What is in the photo, in short?", "three pears on a blue plate"]
    assert media(first) == "000000017.jpg"
    assert texts(second)[0] in READERS["lcs558k"].instructions[0]  # a row that asks nothing


def test_panda70m_as_parts_of_whole_videos(dataset):
    first, second = dataset("panda70m")
    assert texts(first)[1] == 'A man\'s "kite" is in the air.' and texts(second)[1] == "It's a boat, on a lake."
    assert (first["start"], first["end"]) == (10.76, 17.633)
    assert (second["start"], second["end"]) == (3751.151, 3754.32)
    assert texts(first)[0] in READERS["panda70m"].instructions[0]


def test_panda70m_with_times_is_one_conversation(dataset):
    (row,) = dataset("panda70m", times=True)
    asked, answer, asked_again, again = texts(row)
    assert "from 00:00:10.760 to 00:00:17.633" in asked and "from 01:02:31.151 to 01:02:34.320" in asked_again
    assert answer.startswith("A man") and again.startswith("It's")
    assert "start" not in row and "end" not in row
    assert [len(texts(row)) for row in dataset("panda70m", times=True, turns=1)] == [2, 2]


def test_panda70m_cut_by_its_own_downloader(dataset):
    names = ["00000/0000000_00000.mp4", "00000/0000000_00001.mp4"]
    reader = dataset("panda70m", media=names)
    first, second = reader
    assert (media(first), media(second)) == ("0000000_00000.mp4", "0000000_00001.mp4")
    assert "start" not in first
    # The downloader writes captions beside the clips, so files of another csv are noticed.
    write(reader.media / "00000" / "0000000_00001.txt", "It's a boat,  on a lake.\n")
    assert len(list(reader)) == 2
    write(reader.media / "00000" / "0000000_00001.txt", "A cat sleeps.")
    with pytest.raises(DataError, match="not downloaded from this annotation file"):
        list(reader)


def test_audioset(dataset):
    first, second = dataset("audioset")
    assert texts(first)[1] == "Speech; Gush" and texts(second)[1] == "Male speech, man speaking"
    assert (first["start"], first["end"], media(first)) == (30, 40, f"{OTHER}.flac")
    assert (second["start"], second["end"], media(second)) == (0, 8.5, f"{ID}.m4a")


def test_audioset_labels_may_lie_elsewhere(dataset, tmp_path):
    labels = write(tmp_path / "names.csv", LABELS.replace("Gush", "A gush"))
    assert texts(next(iter(dataset("audioset", labels=labels))))[1] == "Speech; A gush"


def test_audiocaps(dataset):
    (row,) = dataset("audiocaps")
    assert texts(row)[1] == "Rain falls, then a door shuts"
    assert (row["start"], row["end"]) == (130, 140)


def test_autoacd_has_ids_of_two_kinds(dataset):
    first, second, third = dataset("autoacd")
    assert texts(first)[1] == "Wind blows over a field, and a gate creaks."
    assert [media(row) for row in (first, second, third)] == [f"{ID}_000117.wav", f"Y{OTHER}.wav", f"{OTHER}.mp4"]
    assert "start" not in first and "start" not in second
    assert (third["start"], third["end"], texts(third)[1]) == (3, 13, "A bell rings.")


def test_autoacd_without_a_start_cannot_be_found_in_a_whole_video(dataset):
    reader = dataset("autoacd", media=[f"{ID}.wav", f"{OTHER}.wav"], missing="skip")
    assert [row["start"] for row in reader] == [117, 3]
    assert reader.counts["missing"] == 1


def test_videoinstruct100k(dataset):
    (row,) = dataset("videoinstruct100k")
    assert texts(row) == ["What is built?", "A shed.\n\nThen a fence."]
    (row,) = dataset("videoinstruct100k", media=[f"{ID}.mp4"])
    assert media(row) == f"v_{ID}.mkv"  # by its own id first


def test_internvid_names_times_of_whole_videos(dataset):
    (row,) = dataset("internvid")
    assert "from 00:01:51.578 to 00:01:53.647" in texts(row)[0] and texts(row)[1] == "a fox under a hedge"
    assert "start" not in row
    (row,) = dataset("internvid", times=False)
    assert (row["start"], row["end"]) == (111.578, 113.647) and "00:01" not in texts(row)[0]


def test_internvid_cut_files_have_no_times_to_name(dataset):
    (row,) = dataset("internvid", media=[f"{ID}_00:01:51.578_00:01:53.647.mp4"])
    assert "00:01" not in texts(row)[0] and "start" not in row


def test_vggsound_leaves_out_the_other_split(dataset):
    (row,) = dataset("vggsound")
    assert (texts(row)[1], media(row)) == ("pouring tea", f"{ID}_000030.mp4")
    (row,) = dataset("vggsound", media=[f"{OTHER}.mp4"], split="test")
    assert (texts(row)[1], row["start"], row["end"]) == ("frog croaking", 1, 11)


# ------------------------------------------------------------------------------------------------------------ bad rows


BAD = {
    "lcs558k": [
        ('[{"id": "1", "image": "a.jpg", "conversations": []}]', "pairs of turns"),
        (LCS.replace('"gpt"', '"human"'), "must alternate"),
        (LCS.replace("00000/", "../"), "leads out of the folder"),
        (LCS.replace("three pears on a blue plate", ""), "'value' is missing or empty"),
        ('["text"]', "this is a str"),
    ],
    "panda70m": [
        (PANDA.replace("'0:00:10.760', ", ""), "not a pair"),
        (PANDA.replace("[0.45, 0.51]", "[0.45]"), "2 timestamps, 2 captions and 1 scores"),
        (PANDA.replace("[0.45, 0.51]", "[0.45, None]"), "a score is None"),
        (PANDA.replace("[0.45, 0.51]", "__import__('os')"), "'matching_score' is not a list"),
        (PANDA.replace("0:00:10.760", "0:00:20.760"), "the start must be"),
        (PANDA.replace("0:00:10.760", "0:10:76"), "is not a time"),
    ],
    "audioset": [
        (AUDIOSET.replace("/t/dd00088", "/t/none"), "'/t/none' is not among the 3"),
        (AUDIOSET.replace(" 40.000,", ""), "3 fields, but there are 4 columns"),
        (AUDIOSET.replace("30.000", "abc"), "'abc', not a number"),
        (AUDIOSET.replace("30.000", "inf"), "'inf', not a number"),
    ],
    "audiocaps": [
        (AUDIOCAPS.replace(",130,", ",-5,"), "'-5' is not a time"),
        (AUDIOCAPS.replace('"Rain falls, then a door shuts"', '""'), "'caption' is missing or empty"),
        (AUDIOCAPS.replace("Rain falls", "<|audio|>"), "typed in the text"),
    ],
    "autoacd": [(AUTOACD.replace("_000117", ""), "neither ID_000000")],
    "videoinstruct100k": [
        (VIDEOINSTRUCT.replace('"a"', '"answer"'), "'a' is missing or empty"),
        (VIDEOINSTRUCT.replace("v_", "/etc/v_"), "leads out of the folder"),
    ],
    "internvid": [
        (INTERNVID.replace("00:01:51.578", "00:01:54.578"), "the start must be"),
        (INTERNVID.replace("00:01:51.578", "../00:01:51.578"), "is not a time"),
        (INTERNVID.replace("0.41", '"high"'), "'UMT_Score' is 'high'"),
        ("{" + INTERNVID, "not JSON"),
    ],
    "vggsound": [(VGGSOUND.replace("train", "val"), "the split is 'val'")],
}


@pytest.mark.parametrize("name, text, says", [(name, *case) for name, cases in BAD.items() for case in cases])
def test_bad_rows_are_named_or_counted(name, text, says, dataset):
    with pytest.raises(DataError) as error:
        list(dataset(name, text, missing="skip"))
    assert says in str(error.value) and error.value.line is not None
    assert error.value.file.endswith(FILES[name][0])

    reader = dataset(name, text, missing="skip", bad_rows="skip")
    try:
        list(reader)
    except DataError as left:  # where no good row is beside the bad one
        assert "not a single row" in str(left)
    assert reader.counts["bad_rows"] >= 1


@pytest.mark.parametrize(
    "name, text, says",
    [
        ("audiocaps", "youtube_id,caption\n", "no column 'audiocap_id'"),
        ("audiocaps", AUDIOCAPS.splitlines()[0], "it is empty"),
        ("lcs558k", '{"id": 1}', "must begin with '['"),
        ("lcs558k", LCS[:-40], "breaks off"),
        ("vggsound", "", "it is empty"),
    ],
)
def test_files_that_are_not_the_dataset(name, text, says, dataset):
    with pytest.raises(DataError, match="audiocaps|lcs558k|vggsound") as error:
        list(dataset(name, text, missing="skip", bad_rows="skip"))
    assert says in str(error.value)


# --------------------------------------------------------------------------------------------------------------- media


def test_missing_media_are_an_error_that_says_what_was_looked_for(dataset):
    with pytest.raises(MissingMediaError) as error:
        list(dataset("vggsound", media=[]))
    assert error.value.line == 2
    assert f"{ID}_000030.*" in str(error.value) and "missing='skip'" in str(error.value)


def test_media_left_out_are_counted_and_reported(dataset, caplog):
    text = VGGSOUND + f"{OTHER},70,pouring tea,train\n"
    reader = dataset("vggsound", text, missing="skip")
    with caplog.at_level(logging.WARNING):
        assert len(list(reader)) == 1
    assert reader.counts == {"rows": 1, "missing": 1, "low_score": 0}
    assert "left out were 1 segments whose media are missing" in caplog.text


def test_not_a_single_medium_is_an_error_even_when_skipped(dataset):
    with pytest.raises(DataError, match="not a single row"):
        list(dataset("vggsound", media=[], missing="skip"))


def test_names_of_files_are_templates(dataset):
    reader = dataset("vggsound", media=["train/pouring/x.wav", f"train/{ID}-30000-40000.avi"])
    reader = READERS["vggsound"](reader.annotations, reader.media, cut="train/{id}-{start_ms}-{end_ms}.*")
    (row,) = reader
    assert media(row) == f"{ID}-30000-40000.avi" and "start" not in row
    # The other one is off, so that a name cannot be taken for what it is not.
    assert reader.whole == ()


def test_a_cut_file_goes_before_the_whole_one(dataset):
    (row,) = dataset("vggsound", media=[f"{ID}.mp4", f"{ID}_000030.mp4"])
    assert media(row) == f"{ID}_000030.mp4" and "start" not in row


def test_low_scores_are_left_out(dataset):
    reader = dataset("panda70m", min_score=0.5)
    (row,) = reader
    assert texts(row)[1].startswith("It's a boat") and reader.counts["low_score"] == 1
    with pytest.raises(DataError, match="no score"):
        list(dataset("audiocaps", min_score=0.5))


def test_wordings_vary(dataset):
    lines = "".join(f"{90000 + at},{ID},{at},A cow moos\n" for at in range(60))
    asked = [texts(row)[0] for row in dataset("audiocaps", AUDIOCAPS.splitlines()[0] + "\n" + lines)]
    assert set(asked) == set(READERS["audiocaps"].instructions[0])


# ----------------------------------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    "options, says",
    [
        ({"cut": "{video}.mp4"}, "no field 'video'"),
        ({"whole": ["{id"]}, "no template"),
        ({"cut": "{id:06d}.mp4"}, "no template"),
        ({"missing": "ignore"}, "missing is 'ignore'"),
        ({"bad_rows": None}, "bad_rows is None"),
        ({"turns": 0}, "turns is 0"),
        ({"splits": "train"}, "no option 'splits': there are split, cut"),
        ({"split": "val"}, "no split 'val'"),
    ],
)
def test_bad_options(options, says, dataset):
    with pytest.raises(DataError) as error:
        list(dataset("vggsound", **options))
    assert says in str(error.value)


def test_whole_media_have_no_times(dataset):
    with pytest.raises(DataError, match="describes whole media"):
        dataset("videoinstruct100k", times=True)


def test_bad_names(tmp_path):
    with pytest.raises(DataError, match="did you mean 'audiocaps'"):
        open_reader("AudioCap", tmp_path, tmp_path)
    with pytest.raises(DataError, match="no such file"):
        open_reader("audiocaps", tmp_path / "train.csv", tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        open_reader("audiocaps", write(tmp_path / "train.csv", AUDIOCAPS), tmp_path / "media")


# --------------------------------------------------------------------------------------------------------------- files


def test_arrays_are_read_in_pieces_with_their_lines(tmp_path):
    values = [{"text": "é" * at, "at": at} for at in range(50)]
    path = write(tmp_path / "array.json", "\n [\n" + ",\n".join(map(json.dumps, values)) + "\n]\n")
    for chunk in (3, 16, 1 << 20):
        assert list(published._json_array(path, chunk)) == [(at + 3, value) for at, value in enumerate(values)]


def test_reading_is_streaming(dataset):
    """The first rows come although the file is broken behind them."""
    reader = dataset("internvid", INTERNVID * 3 + "broken\n")
    rows = iter(reader)
    assert [next(rows)["id"] for _ in range(3)] == ["0-0", "1-0", "2-0"]
    with pytest.raises(DataError, match=":4: not JSON"):
        next(rows)
