// What the page does by itself: times seek the player, the playhead runs along the axis, a span is picked on it.
//
// Listeners sit on the document, since gradio writes its HTML anew whenever something in it changes.
(() => {
  "use strict";

  let stopAt = null; // seconds at which playing a span ends
  let cursor = 0; // where the keys are on the axis, in seconds
  let anchor = null; // the first end of a span that is being picked
  let picked = null; // [start, end]
  let drag = null;

  const media = () => document.querySelector("#player-media");
  const axis = () => document.querySelector(".axis");
  const length = () => Number(axis()?.dataset.seconds || 0);
  const root = () => document.querySelector("#timeline");

  function clock(seconds) {
    const ms = Math.round(seconds * 1000);
    const two = (value) => String(Math.floor(value)).padStart(2, "0");
    return `${two(ms / 3600000)}:${two((ms / 60000) % 60)}:${two((ms / 1000) % 60)}.${String(ms % 1000).padStart(3, "0")}`;
  }

  function seek(start, end) {
    const player = media();
    if (!player) return;
    player.currentTime = start;
    stopAt = end > start ? end : null;
    if (stopAt === null) player.pause();
    // A browser may refuse to play before the visitor has touched the page: the player then stands at the right place.
    else player.play().catch(() => {});
  }

  // -- the axis -------------------------------------------------------------------------------------------------------

  // Places on the axis are variables of what holds it, so that they outlive the HTML inside.
  function place(name, seconds) {
    root()?.style.setProperty(name, seconds === null ? "-1" : String(seconds / (length() || 1)));
  }

  function show() {
    const [start, end] = picked || (anchor === null ? [null, null] : [Math.min(anchor, cursor), Math.max(anchor, cursor)]);
    place("--from", start);
    place("--to", end);
    place("--cursor", cursor);
    root()?.classList.toggle("has-span", start !== null);
    const track = document.querySelector(".axis .track");
    track?.setAttribute("aria-valuenow", cursor.toFixed(1));
    track?.setAttribute("aria-valuetext", `${cursor.toFixed(1)} s`);
    const text = document.querySelector(".picked-text");
    if (text && picked) text.textContent = `In the question: from ${clock(picked[0])} to ${clock(picked[1])}`;
    else if (text && anchor !== null) text.textContent = `From ${clock(anchor)}: choose the other end`;
    else if (text) text.textContent = "";
  }

  function clear() {
    anchor = picked = null;
    show();
  }

  function pick(one, other) {
    anchor = null;
    picked = [Math.min(one, other), Math.max(one, other)].map((value) => Math.round(value * 10) / 10);
    show();
    put(picked);
  }

  function mark(seconds) {
    cursor = seconds;
    if (anchor === null) {
      picked = null;
      anchor = seconds;
      show();
    } else if (Math.abs(seconds - anchor) >= 0.05) {
      pick(anchor, seconds);
    }
  }

  function under(event) {
    const box = document.querySelector(".axis .track").getBoundingClientRect();
    return Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1) * length();
  }

  document.addEventListener("pointerdown", (event) => {
    const track = event.target.closest?.(".axis .track");
    if (!track || event.button !== 0) return;
    drag = { from: under(event), x: event.clientX, moved: false };
    track.setPointerCapture(event.pointerId);
  });

  document.addEventListener("pointermove", (event) => {
    if (!drag) return;
    drag.moved ||= Math.abs(event.clientX - drag.x) > 4;
    if (!drag.moved) return;
    picked = null;
    anchor = drag.from;
    cursor = under(event);
    show();
  });

  document.addEventListener("pointerup", (event) => {
    if (!drag) return;
    const { from, moved } = drag;
    drag = null;
    if (moved) {
      pick(from, under(event));
      seek(picked[0], picked[0]);
    } else {
      mark(from);
      if (anchor !== null) seek(from, from);
    }
  });

  document.addEventListener("pointercancel", () => {
    drag = null;
  });

  document.addEventListener("keydown", (event) => {
    if (!event.target.closest?.(".axis .track")) return;
    const step = Math.max(length() / 100, 0.1) * (event.shiftKey ? 10 : 1);
    const to = {
      ArrowLeft: cursor - step,
      ArrowDown: cursor - step,
      ArrowRight: cursor + step,
      ArrowUp: cursor + step,
      Home: 0,
      End: length(),
    }[event.key];
    if (to !== undefined) {
      cursor = Math.min(Math.max(to, 0), length());
      seek(cursor, cursor);
      show();
    } else if (event.key === "Enter" || event.key === " ") {
      mark(cursor);
    } else if (event.key === "Escape") {
      clear();
    } else {
      return;
    }
    event.preventDefault();
  });

  // -- the question -----------------------------------------------------------------------------------------------------

  const box = () => document.querySelector("#question textarea");

  function write(text) {
    const area = box();
    if (!area) return;
    // Set past the framework's own setter, and told of as if it were typed.
    Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, "value").set.call(area, text);
    area.dispatchEvent(new Event("input", { bubbles: true }));
  }

  // A span in the question: it takes the place of one that is there, else it stands before the question mark.
  function put([start, end]) {
    const span = `from ${clock(start)} to ${clock(end)}`;
    const text = box()?.value.trim() || "";
    const there = /from \d\d:\d\d:\d\d\.\d{3} to \d\d:\d\d:\d\d\.\d{3}/i;
    if (!text) write(`What is seen and heard ${span}?`);
    else if (there.test(text)) write(text.replace(there, span));
    else write(`${text.replace(/[?.!\s]+$/, "")} ${span}?`);
  }

  document.addEventListener("click", (event) => {
    const moment = event.target.closest?.("a.moment");
    if (moment) {
      event.preventDefault();
      seek(Number(moment.dataset.start), Number(moment.dataset.end));
      return;
    }
    const suggestion = event.target.closest?.("button.suggestion");
    if (suggestion) {
      write(suggestion.dataset.question);
      // The framework takes the text up after this task.
      setTimeout(() => document.querySelector("#ask")?.click());
    }
  });

  // -- the player (its events do not bubble, but can be caught on the way down) ----------------------------------------

  document.addEventListener(
    "timeupdate",
    (event) => {
      if (event.target !== media()) return;
      place("--head", event.target.currentTime);
      if (stopAt !== null && event.target.currentTime >= stopAt) {
        event.target.pause();
        stopAt = null;
      }
    },
    true,
  );

  document.addEventListener(
    "loadstart",
    (event) => {
      if (event.target.id !== "player-media") return;
      stopAt = null;
      cursor = 0;
      place("--head", 0);
      clear();
    },
    true,
  );

  document.addEventListener(
    "error",
    (event) => {
      if (event.target.id === "player-media") document.querySelector(".unplayable").hidden = false;
    },
    true,
  );
})();
