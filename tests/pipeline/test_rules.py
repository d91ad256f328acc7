"""The table of rules, the parser, and the prompts that ask for what is checked."""

import re

import pytest

from saven_hf.data.schema import CHECKS
from saven_hf.pipeline.errors import PromptError, ReplyError
from saven_hf.pipeline.parsing import Options, parse_letter, parse_options, parse_questions, parse_text
from saven_hf.pipeline.rules import _FIVE, _TWO, RULES, Context, check_rules, question_problems
from saven_hf.pipeline.templates import TEMPLATES, Prompts


TOLD = [rule for rule in RULES if rule.validator is not None]


@pytest.mark.parametrize("rule", TOLD, ids=lambda rule: f"{rule.template}: {rule.name}")
def test_every_rule_fails_its_example_and_is_the_only_one_of_that_name(rule):
    assert rule.template in TEMPLATES
    assert rule.validator(rule.fails, rule.context)
    with pytest.raises(ReplyError):
        check_rules(rule.template, rule.fails, rule.context)


def test_rules_that_a_text_does_not_show_say_who_tells():
    for rule in RULES:
        assert rule.template in TEMPLATES
        if rule.validator is None:
            assert rule.fails is None
            named = re.findall(r"`(\w+)`", rule.told_by)
            assert all(name in (*CHECKS, "parse_questions", "parse_options") for name in named)
            assert bool(named) == bool(rule.told_by)


def test_words_that_all_texts_have_are_no_trace_of_a_caption():
    context = Context(captions=("The door is opened.", "It is the bell that is in there."))
    with pytest.raises(ReplyError, match="Nothing of 'It is the bell"):
        check_rules("fuse_segment", "It is the door that is opened in there.", context)


def test_a_question_by_itself_is_held_to_the_rules():
    context = Context(captions=("From 00:00:01.000 to 00:00:02.000 a tall man in a red coat opens the door.",))
    good = "From 00:00:01.000 to 00:00:02.000, who opens the door?"
    assert question_problems(good, "timestamped", context) == []
    for question, kind, said in (
        (good, "global", "names times"),
        ("Who opens the door", "global", "The question does not end"),
        ("Does a tall man in a red coat enter?", "global", "repeats a description"),
        ("What does the caption tell?", "global", "mentions 'caption'"),
        ("Considering both the audio and the picture, what happens?", "global", "both needed"),
    ):
        found = question_problems(question, kind, context)
        assert any(said in one for one in found) or "both" in said and found, (question, found)


def test_good_texts_pass_all_rules():
    context = Context(_TWO, ("A door opens.", "A bell rings."), 9.0)
    check_rules("visual_caption", "A man in a red coat opens a wooden door.", context)
    check_rules("audio_caption", "A bell rings twice, high and clear, over the hum of a crowd.", context)
    check_rules("fuse_segment", "A bell rings as the door opens.", context)
    check_rules("fuse_video", "From 00:00:00.000 to 00:00:03.960, a bell rings as a door opens.", context)
    check_rules("questions", list(_FIVE), context)
    check_rules(
        "options", Options("The crowd cheers.", ("The crowd leaves.", "The crowd sings.", "All wait.")), context
    )


def test_questions_are_read_however_they_are_dressed():
    reply = "Here are five:\n\n**Question 1:** A?\nquestion 2: B?\n- Question 3: C?\n"
    reply += "Question 4:\nD?\n```\nQUESTION 5. E?\n```"
    assert parse_questions(reply) == ["A?", "B?", "C?", "D?", "E?"]


@pytest.mark.parametrize(
    "reply, problem",
    [
        ("Question 1: A?\nQuestion 2: B?\nQuestion 3: C?\nQuestion 4: D?", "Question 5 is missing"),
        ("Question 1: A?\nQuestion 1: B?\nQuestion 3: C?\nQuestion 4: D?\nQuestion 5: E?", "there 2 times"),
        ("".join(f"Question {n}: A{n}?\n" for n in range(1, 7)), "more than 5"),
        ("Question 1: A?\nand more\nQuestion 2: B?", "belongs to nothing"),
        ("", "Question 1 is missing"),
        ("Question 1:\nQuestion 2: B?\nQuestion 3: C?\nQuestion 4: D?\nQuestion 5: E?", "Question 1 is empty"),
    ],
)
def test_half_a_reply_is_none(reply, problem):
    with pytest.raises(ReplyError, match=problem):
        parse_questions(reply)


def test_options():
    reply = "Correct option: It rises.\nOption 1: It falls.\n**Option 2**: It stays.\nOption 3: It turns."
    assert parse_options(reply) == Options("It rises.", ("It falls.", "It stays.", "It turns."))
    with pytest.raises(ReplyError, match="Option 3"):
        parse_options(reply.rpartition("\n")[0])
    with pytest.raises(ReplyError, match="Correct option"):
        parse_options(reply.partition("\n")[2])
    with pytest.raises(ReplyError, match="belongs to nothing"):
        parse_options(f"{reply}\nI hope this helps!")


@pytest.mark.parametrize(
    "reply, letter",
    [("B", "B"), ("(C) It falls", "C"), ("D. It", "D"), ("The answer is B.", "B"), ("Answer: A", "A"),
     ("All of them", None), ("A dog barks", "A"), ("option A or option B", None), ("", None)],
)  # fmt: skip
def test_letters(reply, letter):
    assert parse_letter(reply) == letter


def test_an_empty_text_is_no_text():
    with pytest.raises(ReplyError):
        parse_text(" \n```\n```")
    assert parse_text('"A door\nopens."') == "A door opens."


# ------------------------------------------------------------------------------------------------------------- prompts

VALUES = {
    "frames": 8, "seconds": 2.0, "captions": ["One.", "Two."], "start": "00:00:00.000", "end": "00:00:02.000",
    "visual_caption": "A door.", "audio_caption": "A bell.", "av_caption": "Both.", "modality": "av", "kind": "global",
    "segments": [{"start": "00:00:00.000", "end": "00:00:02.000", "caption": "A door."}], "question": "Why?",
    "options": ["a", "b", "c", "d"], "caption": None, "system": "S", "request": "R", "reply": "X", "problems": ["No."],
}  # fmt: skip


@pytest.mark.parametrize("name", TEMPLATES)
def test_prompts_render_with_what_they_are_given(name):
    prompt = Prompts().render(name, {key: VALUES[key] for key in TEMPLATES[name]})
    assert prompt.system and prompt.user and "{{" not in prompt.system + prompt.user


def test_own_prompts_take_the_place_of_ours_and_change_the_hash(tmp_path):
    (tmp_path / "answer.jinja").write_text(
        "{% block system %}S{% endblock %}{% block user %}{{ question }}!{% endblock %}"
    )
    ours, own = Prompts(), Prompts(tmp_path)
    assert own.render("answer", VALUES).user == "Why?!"
    assert own.hashes["answer"] != ours.hashes["answer"] and own.hashes["options"] == ours.hashes["options"]
    assert own.hashes_of("answer") == [f"answer.jinja={own.hashes['answer']}"]


@pytest.mark.parametrize(
    "name, text, problem",
    [
        ("answers", "", "no stage uses it"),
        ("answer", "{% block system %}S{% endblock %}", "lacks the block 'user'"),
        ("answer", "{% block system %}", "line 1"),
    ],
)
def test_prompts_that_cannot_be_used(tmp_path, name, text, problem):
    (tmp_path / f"{name}.jinja").write_text(text)
    with pytest.raises(PromptError, match=problem):
        Prompts(tmp_path)


def test_a_prompt_cannot_reach_into_python(tmp_path):
    body = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    (tmp_path / "answer.jinja").write_text(
        f"{{% block system %}}S{{% endblock %}}{{% block user %}}{body}{{% endblock %}}"
    )
    with pytest.raises(PromptError):
        Prompts(tmp_path).render("answer", VALUES)
