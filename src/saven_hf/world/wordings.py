"""How questions are worded: for each family the wordings of training, and wordings held out from it.

{given} is what the question names, {span} is "from 00:00:03.000 to 00:00:09.500" and {middle} a moment within it.
"""

from __future__ import annotations


# family: (wordings trained on, held-out wordings)
WORDINGS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # -- global -------------------------------------------------------------------------------------------------------
    "heard_with": (
        (
            "What is heard while {given} is shown?",
            "Which sound goes with the part where {given} is seen?",
            "What do you hear when {given} is on screen?",
        ),
        ("Name the sound that accompanies {given}.", "As {given} is visible, what can be heard?"),
    ),
    "seen_with": (
        (
            "What is shown while {given} is heard?",
            "Which picture goes with the part where {given} is heard?",
            "What do you see when there is {given}?",
        ),
        ("Name the picture that accompanies {given}.", "As {given} can be heard, what is visible?"),
    ),
    "motion_with": (
        (
            "What does the shape do while {given} is heard?",
            "How does the picture move when there is {given}?",
            "What happens on screen while {given} is heard?",
        ),
        ("As {given} can be heard, how does the shape behave?",),
    ),
    "pulses_with": (
        (
            "How many times does the sound come while {given} is shown?",
            "How many pulses are heard when {given} is on screen?",
            "While {given} is shown, how often does it sound?",
        ),
        ("Count the sounds that accompany {given}.",),
    ),
    "copies_with": (
        (
            "How many shapes are shown while {given} is heard?",
            "How many shapes are on screen when there is {given}?",
            "While {given} is heard, how many shapes do you see?",
        ),
        ("Count the shapes that accompany {given}.",),
    ),
    "heard_after": (
        (
            "What is heard right after {given} disappears?",
            "Which sound comes just after the part that shows {given}?",
            "What do you hear next once {given} is gone?",
        ),
        ("Which sound follows as soon as {given} leaves the screen?",),
    ),
    "heard_before": (
        (
            "What is heard right before {given} appears?",
            "Which sound comes just before the part that shows {given}?",
            "What do you hear last before {given} comes?",
        ),
        ("Which sound leads up to the appearance of {given}?",),
    ),
    "seen_after": (
        (
            "What is shown right after {given} ends?",
            "Which picture comes just after the part with {given}?",
            "What do you see next once {given} is over?",
        ),
        ("Which picture follows as soon as {given} is no longer heard?",),
    ),
    "seen_before": (
        (
            "What is shown right before {given} begins?",
            "Which picture comes just before the part with {given}?",
            "What do you see last before {given} starts?",
        ),
        ("Which picture leads up to the beginning of {given}?",),
    ),
    "pair_after": (
        (
            "What comes right after the part with {given}?",
            "What is seen and heard next after {given}?",
            "Which picture and sound follow {given}?",
        ),
        ("Once {given} are over, what is seen and heard?",),
    ),
    "pair_before": (
        (
            "What comes right before the part with {given}?",
            "What is seen and heard last before {given}?",
            "Which picture and sound precede {given}?",
        ),
        ("What is seen and heard that leads up to {given}?",),
    ),
    "heard_when_appears": (
        (
            "What is heard at the moment when {given} appears?",
            "Which sound is on when {given} comes on screen?",
            "What do you hear just as {given} appears?",
        ),
        ("During which sound does {given} first show?",),
    ),
    "seen_when_begins": (
        (
            "What is shown at the moment when {given} begins?",
            "Which picture is on when {given} starts?",
            "What do you see just as {given} begins?",
        ),
        ("During which picture does {given} set in?",),
    ),
    "in_time": (
        (
            "Is the sound in time with the picture?",
            "Do picture and sound change together?",
            "Are sound and picture in step, or does the sound come early or late?",
        ),
        ("How well is the sound track aligned with the picture?",),
    ),
    "seen_after_seen": (
        ("What is shown right after {given}?", "Which picture follows {given}?", "What replaces {given} on screen?"),
        ("Once {given} disappears, what appears?",),
    ),
    "heard_after_heard": (
        ("What is heard right after {given}?", "Which sound follows {given}?", "What replaces {given} in the sound?"),
        ("Once {given} is over, what sets in?",),
    ),
    # -- timestamped --------------------------------------------------------------------------------------------------
    "pair_at": (
        (
            "What is seen and heard {span}?",
            "Which picture and sound are there {span}?",
            "At {middle}, what is seen and heard?",
        ),
        ("Describe picture and sound {span}.",),
    ),
    "pair_after_time": (
        (
            "What is seen and heard right after the part {span}?",
            "Which picture and sound follow what happens {span}?",
            "What comes next after what is seen and heard at {middle}?",
        ),
        ("Once the part {span} is over, what is seen and heard?",),
    ),
    "pair_before_time": (
        (
            "What is seen and heard right before the part {span}?",
            "Which picture and sound precede what happens {span}?",
            "What comes just before what is seen and heard at {middle}?",
        ),
        ("What is seen and heard that leads up to the part {span}?",),
    ),
    "seen_at": (
        ("What is shown {span}?", "Which picture is on screen {span}?", "What do you see at {middle}?"),
        ("Name the picture {span}.",),
    ),
    "heard_at": (
        ("What is heard {span}?", "Which sound is there {span}?", "What do you hear at {middle}?"),
        ("Name the sound {span}.",),
    ),
    "copies_at": (
        ("How many shapes are shown {span}?", "How many shapes do you see at {middle}?"),
        ("Count the shapes on screen {span}.",),
    ),
    "pulses_at": (
        ("How many times does the sound come {span}?", "How many pulses are heard {span}?"),
        ("Count the sounds {span}.",),
    ),
    "heard_again": (
        (
            "The picture shown {span} is shown at one other time. What is heard then?",
            "What is heard when the picture of the part {span} is shown the other time?",
            "Which sound goes with the other showing of what is seen at {middle}?",
        ),
        ("Find the other part that shows what is seen {span}. Which sound does it have?",),
    ),
    "seen_again": (
        (
            "The sound heard {span} is heard at one other time. What is shown then?",
            "What is shown when the sound of the part {span} is heard the other time?",
            "Which picture goes with the other hearing of what sounds at {middle}?",
        ),
        ("Find the other part that sounds like the part {span}. What does it show?",),
    ),
    "pulses_again": (
        (
            "The picture shown {span} is shown at one other time. How many times does the sound come then?",
            "How many pulses are heard when the picture of the part {span} is shown the other time?",
        ),
        ("Find the other part that shows what is seen {span}. How often does it sound there?",),
    ),
    "copies_again": (
        (
            "The sound heard {span} is heard at one other time. How many shapes are shown then?",
            "How many shapes are seen when the sound of the part {span} is heard the other time?",
        ),
        ("Find the other part that sounds like the part {span}. How many shapes does it show?",),
    ),
    "direction_at": (
        (
            "Do picture and sound go the same way {span}?",
            "Which way do the shape and the pitch go {span}?",
            "How do the shape and the pitch move around {middle}?",
        ),
        ("Compare the directions of shape and pitch {span}.",),
    ),
    # -- time_range ---------------------------------------------------------------------------------------------------
    "when_pair": (
        (
            "When do {given} come together?",
            "During which time range are there {given}?",
            "Which time range has {given} at once?",
        ),
        ("Find the part with {given}. When is it?",),
    ),
    "when_seen": (
        ("When is {given} shown?", "During which time range is {given} on screen?", "Which time range shows {given}?"),
        ("Find {given}. When is it visible?",),
    ),
    "when_heard": (
        ("When is {given} heard?", "During which time range is there {given}?", "Which time range has {given}?"),
        ("Find {given}. When can it be heard?",),
    ),
    "when_direction_agrees": (
        (
            "In which time range do the shape and the pitch go the same way?",
            "When do picture and sound move in the same direction?",
            "Which time range has shape and pitch both going up, or both going down?",
        ),
        ("When do the motion of the shape and the glide of the sound match?",),
    ),
    "when_number_agrees": (
        (
            "In which time range are there as many sounds as shapes?",
            "When does the number of pulses equal the number of shapes?",
            "Which time range has the same number of shapes and of pulses?",
        ),
        ("When do the counts of shapes and sounds match?",),
    ),
    "when_seen_again": (
        (
            "When else is the picture shown that goes with {given}?",
            "What is seen while {given} is heard is shown at one other time. When?",
            "In which other time range is the picture shown that is seen with {given}?",
        ),
        ("Look at the picture that accompanies {given}. When is its other showing?",),
    ),
    "when_heard_again": (
        (
            "When else is the sound heard that goes with {given}?",
            "What is heard while {given} is shown is heard at one other time. When?",
            "In which other time range is the sound heard that comes with {given}?",
        ),
        ("Listen to the sound that accompanies {given}. When is it heard the other time?",),
    ),
}
