"""The page, laid out with gradio: `build_page` makes it, `run` serves it.

Every handler has a name by which `gradio_client` calls it; the first thing that each returns is plain data.
"""

import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gradio as gr

from . import AppError, Settings, words
from . import engine as engines
from .engine import PARTS, Engine
from .examples import EXAMPLES, example_file, example_named
from .visits import MENDABLE, Visit, Visits, look_at_example


_STATIC = Path(__file__).parent / "static"
# Extensions are a help for the file dialog alone; what a file is, its content tells.
_UPLOADS = ".mp4 .mov .m4v .mkv .webm .avi .mpg .ts .flv .ogg .wav .flac .mp3 .m4a".split()
_CLEAN_EVERY, _UPLOADS_LIVE = 300, 900  # seconds; gradio's own copies of what was uploaded or downloaded
_LOOK_AFTER = 60  # seconds; how often idle visitors are looked for


def build_page(engine: Engine, settings: Settings, visits: Visits, answer=engines.answer) -> gr.Blocks:
    """The page; `launch` it with `look()`, and with the folder of `visits` among `allowed_paths`.

    Args:
        engine: what is said about the model, and what can be taken from it.
        visits: keeps the visitors' files; examples are rendered beside them.
        answer: what answers, see `engine.answer`.
    """

    def visit_of(request: gr.Request) -> Visit:
        return visits.of(request.session_hash)

    def opened(visit: Visit) -> list:
        """All that changes when a video is opened."""
        questions = visit.example.questions if visit.example else ()
        info = {
            "name": visit.name,
            "seconds": visit.seconds,
            "picture": visit.has_picture,
            "sound": visit.has_sound,
            "questions": [question.text for question in questions],
        }
        return [
            info,
            words.player_html(visit),
            visit.axis,
            "",
            words.chat_html(()),
            "",
            words.suggestions_html(questions),
        ]

    def open_example(title: str | None, request: gr.Request):
        visit = visit_of(request)
        with told_to(visit):
            visit.open_example(example_named(title), visits.examples)
        return opened(visit)

    def open_video(path: str | None, request: gr.Request):
        visit = visit_of(request)
        with told_to(visit):
            if path is None:
                raise AppError("There is no file: choose one to upload.")
            visit.open_upload(path)
        return [*opened(visit), None]  # no example is chosen any more

    def ask(question: str, sound: bool, picture: bool, time: bool, request: gr.Request):
        visit = visit_of(request)
        off = [part for part, on in zip(PARTS, (sound, picture, time), strict=True) if not on]
        try:
            for turn in visit.ask(question, off, answer):
                # Rows, costs and the file change with whole answers alone; skipped, they are not sent again.
                done = (
                    [visit.rows(), words.fed_html(turn), visit.write_json(engine.name)]
                    if turn.done
                    else [gr.skip()] * 3
                )
                yield [turn.as_json(), words.chat_html(visit.turns), *done]
        except MENDABLE as error:
            yield [None, words.chat_html(visit.turns), *[gr.skip()] * 3]  # without the turn that failed
            raise _message(visit, error) from error

    def stop_answer(request: gr.Request):
        visit = visit_of(request)
        visit.stop()
        return [words.chat_html(visit.turns), visit.rows(), visit.write_json(engine.name)]

    def conversation(request: gr.Request):
        return visit_of(request).as_json(engine.name)

    def leave(request: gr.Request):
        visits.close(request.session_hash)

    with gr.Blocks(
        title="saven-hf: ask a video", analytics_enabled=False, delete_cache=(_CLEAN_EVERY, _UPLOADS_LIVE)
    ) as page:
        data = gr.JSON(visible=False)
        gr.HTML(words.head_html(engine))
        with gr.Row(equal_height=False):
            with gr.Column(scale=3, min_width=320):
                title = gr.Radio(
                    [example.title for example in EXAMPLES], label="Examples with known answers", elem_id="examples"
                )
            with gr.Column(scale=2, min_width=320):
                upload = gr.UploadButton("Upload a video", file_types=_UPLOADS, type="filepath", elem_id="upload")
                gr.HTML(words.limits_html(settings))
        with gr.Row(equal_height=False, elem_id="main"):
            with gr.Column(scale=3, min_width=320):
                player = gr.HTML(words.player_html(None), elem_id="player")
                with gr.Column(elem_id="timeline"):
                    axis = gr.HTML(elem_id="axis")
                    rows = gr.HTML(elem_id="rows")
                fed = gr.HTML(elem_id="fed")
            with gr.Column(scale=2, min_width=320):
                chat = gr.HTML(words.chat_html(()), elem_id="chat", autoscroll=True, max_height=560)
                suggestions = gr.HTML(elem_id="suggestions")
                question = gr.Textbox(
                    label="Question", placeholder="What is heard from 00:00:03 to 00:00:06?", lines=1, max_lines=4,
                    elem_id="question",
                )  # fmt: skip
                gr.HTML(
                    '<p class="hint">Switch a part off to see beside the answer with everything what it is without '
                    "that part.</p>",
                    visible=bool(engine.parts),
                )
                with gr.Row(elem_id="parts"):
                    parts = [
                        gr.Checkbox(
                            True, label=part.capitalize(), elem_id=f"part-{part}", container=False, min_width=80,
                            visible=part in engine.parts,
                        )
                        for part in PARTS
                    ]  # fmt: skip
                with gr.Row():
                    go = gr.Button("Ask", variant="primary", elem_id="ask", scale=3, min_width=80)
                    stop = gr.Button("Stop", elem_id="stop", scale=1, min_width=80)
                download = gr.DownloadButton("Conversation as JSON", elem_id="export", size="sm")
        ending = gr.Button(visible=False)

        shown = [data, player, axis, rows, chat, fed, suggestions]
        title.input(open_example, title, shown, api_name="open_example", concurrency_limit=2)
        upload.upload(open_video, upload, [*shown, title], api_name="open_video", concurrency_limit=2)
        asking = gr.on(
            [go.click, question.submit], ask, [question, *parts], [data, chat, rows, fed, download], api_name="ask",
            concurrency_limit=1, show_progress="minimal", show_progress_on=[fed],
        )  # fmt: skip
        stop.click(stop_answer, None, [chat, rows, download], cancels=asking, api_visibility="private", queue=False)
        ending.click(conversation, None, data, api_name="conversation")
        page.unload(leave)
    return page.queue(max_size=settings.max_waiting)


@contextmanager
def told_to(visit: Visit) -> Iterator[None]:
    """Turns errors that a visitor can mend into messages on the page."""
    try:
        yield
    except MENDABLE as error:
        raise _message(visit, error) from error


def _message(visit: Visit, error: Exception) -> gr.Error:
    return gr.Error(visit.plain(error), duration=None, title="That did not work", print_exception=False)


def look() -> dict:
    """How the page looks and what it does by itself: arguments of `launch`. Nothing is fetched from elsewhere."""
    theme = gr.themes.Base(
        primary_hue="orange",
        neutral_hue="gray",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    ).set(
        # Dark enough for white text on it, in light and dark.
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_800",
        button_primary_text_color="white",
        checkbox_background_color_selected="*primary_700",
        checkbox_background_color_selected_dark="*primary_700",
        checkbox_border_color_selected="*primary_700",
        checkbox_border_color_selected_dark="*primary_700",
        color_accent="*primary_700",
    )
    script = (_STATIC / "app.js").read_text(encoding="utf-8")
    return {
        "theme": theme,
        "css_paths": str(_STATIC / "app.css"),
        "head": f'<meta name="viewport" content="width=device-width, initial-scale=1"><script>{script}</script>',
        "footer_links": ["api", "settings"],
    }


def run(settings: Settings, host: str | None = None, port: int | None = None) -> None:
    """Load the model and serve the page until it is stopped; see `serve`."""
    if threading.current_thread() is threading.main_thread():
        # Spaces are stopped so; left alone, Python would end without removing what visitors uploaded.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    engine = engines.start(settings.model, settings.device)
    stopped = threading.Event()
    with tempfile.TemporaryDirectory(prefix="saven-app-") as folder:
        visits = Visits(Path(folder), settings)
        page = build_page(engine, settings, visits)
        # The first visitor shall not wait for examples to be made.
        making = threading.Thread(target=make_examples, args=(visits.examples, stopped), name="saven-examples")
        making.start()
        looking = threading.Thread(target=look_after, args=(visits, stopped), name="saven-idle", daemon=True)
        looking.start()
        try:
            page.launch(
                server_name=host,
                server_port=port,
                allowed_paths=[folder],
                max_file_size=f"{settings.max_megabytes}mb",
                ssr_mode=False,
                **look(),
            )
        except OSError as error:
            raise AppError(f"The page cannot be served: {error}") from error
        finally:
            stopped.set()
            page.close()
            making.join()
            looking.join()


def look_after(visits: Visits, stopped: threading.Event, every: float = _LOOK_AFTER) -> None:
    """Forget idle visitors until the page stops, whether or not somebody comes."""
    while not stopped.wait(every):
        visits.forget_idle()


def make_examples(folder: Path, stopped: threading.Event) -> None:
    """Render all examples and their axes, unless stopped in between."""
    for example in EXAMPLES:
        if not stopped.is_set():
            look_at_example(example_file(example, folder))
