"""The page on which a person looks at the questions of AVBench."""

from __future__ import annotations

import argparse
import hashlib
import html
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr
from datasets import Video, load_dataset
from reviews import LETTERS, REASONS, VERDICTS, ReviewError, Reviews


class Questions:
    """The rows of a dataset, and their videos as files that the page can play.

    Args:
        dataset: folder or id on the Hub, with the configuration "qa".
        split: of it.
        media_dir: where videos lie that rows give by reference.
    """

    def __init__(self, dataset: str, split: str = "test", media_dir: str | None = None):
        self.rows = load_dataset(dataset, "qa", split=split).cast_column("video", Video(decode=False))
        self.ids = list(self.rows["id"])
        self.media_dir = media_dir
        self.folder = Path(tempfile.mkdtemp(prefix="avbench-review-"))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, at: int) -> dict[str, Any]:
        return self.rows[at]

    def texts(self):
        """All rows without their videos."""
        return iter(self.rows.remove_columns("video"))

    def video_file(self, row: dict[str, Any]) -> Path | None:
        """A file to play; None if the video is not here."""
        video, media = row["video"], row.get("media")
        if video is not None and video["bytes"] is not None:
            path = self.folder / f"{hashlib.sha256(video['bytes']).hexdigest()[:32]}.mp4"
            if not path.is_file():
                path.write_bytes(video["bytes"])
            return path
        if video is not None and os.path.isfile(video["path"]):
            path = self.folder / f"{hashlib.sha256(video['path'].encode()).hexdigest()[:32]}.mp4"
            if not path.is_file():
                _link_or_copy(video["path"], path)  # gradio serves files of folders that it was told of alone
            return path
        path = Path(self.media_dir, media["file"]) if self.media_dir and media else None
        return path if path is not None and path.is_file() else None


def _link_or_copy(source: str, path: Path) -> None:
    try:
        os.link(source, path)
    except OSError:  # another file system
        shutil.copyfile(source, path)


def player(questions: Questions, row: dict[str, Any], span: int = 0) -> str:
    """A video that starts where the evidence does, and stops behind it."""
    path = questions.video_file(row)
    if path is None:
        name = (row.get("media") or {}).get("file") or row["video_id"]
        return f"<p>The video {html.escape(name)} is not here: start the page with --media-dir.</p>"
    start, end = row["evidence"][min(span, len(row["evidence"]) - 1)]
    source = f"/gradio_api/file={quote(str(path.resolve()))}#t={start:.3f},{end:.3f}"
    return f'<video id="clip" controls preload="auto" style="max-height: 26rem; width: 100%" src="{source}"></video>'


def clock(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes) // 60:02d}:{int(minutes) % 60:02d}:{rest:06.3f}"


def facts(row: dict[str, Any]) -> str:
    spans = ", ".join(f"{clock(start)} - {clock(end)}" for start, end in row["evidence"])
    return (
        f"**{row['id']}** · {row['question_type']} · {row['category']} · video of {row['duration']:.1f} s "
        f"({row['source']}) · evidence: {spans}"
    )


def verdicts(row: dict[str, Any]) -> list[list[str]]:
    """A line for each check: its name, what it found, its score, why."""
    words = {True: "passed", False: "FAILED", None: "undecided"}
    lines = []
    for name, found in row["checks"].items():
        if not isinstance(found, dict):
            continue
        score = "" if found.get("score") is None else f"{found['score']:.2f}"
        lines.append([name.replace("_", " "), words[found.get("passed")], score, found.get("detail") or ""])
    return lines or [["no check was run", "", "", ""]]


def build_page(questions: Questions, reviews: Reviews) -> gr.Blocks:
    """The page; `launch` it with the folders of videos among `allowed_paths`."""

    def show(at: int):
        """What all components hold for a question: its own text, and the last decision on it."""
        row = questions[at]
        last = reviews.get(row["id"]) or {}
        text = {**row, **(last.get("changes") or {})}
        said = f"{last['reviewer']} said: {last['verdict']}" if last else "no decision yet"
        return [
            at,
            f"Question {at + 1} of {len(questions)} · {said} · {reviews.summary(questions.ids)}",
            player(questions, row),
            facts(row),
            text["question"],
            *text["options"],
            text["answer"],
            verdicts(row),
            last.get("verdict"),
            last.get("reason"),
            last.get("comment", ""),
        ]

    def first():
        return [*show(reviews.next_open(questions.ids) or 0), *exports()]

    def step(at: int, by: int):
        return show((at + by) % len(questions))

    def save(at, reviewer, verdict, reason, comment, question, a, b, c, d, answer):
        changes = {"question": question, "options": [a, b, c, d], "answer": answer}
        try:
            reviews.add(questions[at], verdict, reviewer, reason, comment, changes)
        except ReviewError as error:
            kept = [question, a, b, c, d, answer, gr.skip(), verdict, reason, comment]
            return [*show(at)[:4], *kept, f"⚠ {error}", gr.skip(), gr.skip()]
        following = reviews.next_open(questions.ids, at)
        told = "Stored." if following is not None else "Stored. Every question has a decision now."
        return [*show(at if following is None else following), told, *exports()]

    def exports() -> list[str]:
        """Files to download: a button gives out what it was told of last."""
        accepted, decisions = (questions.folder / name for name in ("accepted.jsonl", "reviews.jsonl"))
        with open(accepted, "w", encoding="utf-8") as file:
            for row in reviews.accepted(questions.texts()):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        decisions.write_bytes(reviews.path.read_bytes() if reviews.path.is_file() else b"")
        return [str(accepted), str(decisions)]

    with gr.Blocks(title="AVBench review") as page:
        at = gr.State(0)
        where = gr.Markdown(elem_id="where")
        with gr.Row():
            with gr.Column(scale=3):
                clip = gr.HTML(elem_id="player")
                about = gr.Markdown(elem_id="facts")
                checks = gr.Dataframe(
                    headers=["check", "verdict", "score", "why"], interactive=False, elem_id="checks", wrap=True
                )
            with gr.Column(scale=3):
                question = gr.Textbox(label="Question", lines=2, elem_id="question")
                options = [gr.Textbox(label=f"Option {letter}", elem_id=f"option-{letter}") for letter in LETTERS]
                answer = gr.Radio(list(LETTERS), label="Right answer", elem_id="answer")
            with gr.Column(scale=2):
                reviewer = gr.Textbox(label="Reviewer", elem_id="reviewer")
                verdict = gr.Radio(list(VERDICTS), label="Verdict", elem_id="verdict")
                reason = gr.Radio(list(REASONS), label="Reason (to fix or drop)", elem_id="reason")
                comment = gr.Textbox(label="Comment", lines=2, elem_id="comment")
                store = gr.Button("Store and go on", variant="primary", elem_id="store")
                told = gr.Markdown(elem_id="told")
                with gr.Row():
                    back = gr.Button("Back", elem_id="back")
                    forward = gr.Button("Forward", elem_id="forward")
                files = [
                    gr.DownloadButton("Accepted set", elem_id="accepted"),
                    gr.DownloadButton("Decisions", elem_id="decisions"),
                ]
        shown = [at, where, clip, about, question, *options, answer, checks, verdict, reason, comment]
        page.load(first, None, [*shown, *files])
        given = [at, reviewer, verdict, reason, comment, question, *options, answer]
        store.click(save, given, [*shown, told, *files])
        back.click(lambda at: [*step(at, -1), ""], at, [*shown, told])
        forward.click(lambda at: [*step(at, 1), ""], at, [*shown, told])
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    setting = os.environ.get
    parser.add_argument("--dataset", default=setting("AVBENCH_DATASET"), help="folder, or id on the Hub")
    parser.add_argument("--split", default=setting("AVBENCH_SPLIT", "test"))
    parser.add_argument("--media-dir", default=setting("AVBENCH_MEDIA"), help="of videos given by reference")
    parser.add_argument("--reviews", default=setting("AVBENCH_REVIEWS", "/data" if os.path.isdir("/data") else "."))
    parser.add_argument("--port", type=int, default=None)
    arguments = parser.parse_args()
    if not arguments.dataset:
        parser.error("name a dataset: --dataset, or AVBENCH_DATASET")
    questions = Questions(arguments.dataset, arguments.split, arguments.media_dir)
    allowed = [questions.folder, *([arguments.media_dir] if arguments.media_dir else [])]
    page = build_page(questions, Reviews(Path(arguments.reviews, "reviews.jsonl")))
    page.launch(server_port=arguments.port, allowed_paths=[str(Path(path).resolve()) for path in allowed])


if __name__ == "__main__":
    main()
