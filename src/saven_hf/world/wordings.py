"""How questions are worded: in each family the wordings asked, further ones to learn from, and held-out ones.

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


# family: further wordings, of conversations to learn from alone. What is tested is worded as above, so that results
# stay comparable; but who has met a question in three wordings only knows it by heart, and no other. Words of the
# held-out wordings occur here, their sentences do not.
FURTHER: dict[str, tuple[str, ...]] = {
    # -- global -------------------------------------------------------------------------------------------------------
    "heard_with": (
        "Name what is heard together with {given}.",
        "Which sound accompanies {given}?",
        "As long as {given} is visible, which sound is there?",
        "Listen to the part with {given}. What can be heard in it?",
        "{given} is on screen: what sounds at the same time?",
        "Find {given}. Which sound does that part have?",
    ),
    "seen_with": (
        "Name what is shown together with {given}.",
        "Which picture accompanies {given}?",
        "As long as {given} can be heard, which picture is there?",
        "Look at the part with {given}. What is visible in it?",
        "There is {given}: what is on screen at the same time?",
        "Find {given}. Which picture does that part have?",
    ),
    "motion_with": (
        "How does the shape behave during {given}?",
        "Name the motion that accompanies {given}.",
        "As long as there is {given}, how does the shape move?",
        "Which way does the picture go while {given} can be heard?",
        "Find {given}. What does the shape on screen do in that part?",
    ),
    "pulses_with": (
        "Count the pulses while {given} is shown.",
        "How many sounds accompany {given}?",
        "As {given} is visible, how many times does it sound?",
        "Find {given}. How often does the sound come in that part?",
        "Name the number of pulses that go with {given}.",
    ),
    "copies_with": (
        "Count the shapes while {given} is heard.",
        "How many shapes accompany {given}?",
        "As {given} can be heard, how many shapes are visible?",
        "Find {given}. How many shapes does that part show?",
        "Name the number of shapes that go with {given}.",
    ),
    "heard_after": (
        "Which sound follows when {given} is over?",
        "Name the sound that comes right after {given}.",
        "{given} leaves: what can be heard then?",
        "As soon as {given} disappears, what is heard?",
        "Find {given}. Which sound does the part behind it have?",
    ),
    "heard_before": (
        "Which sound precedes {given}?",
        "Name the sound that comes right before {given}.",
        "{given} appears: what could be heard until then?",
        "Up to the moment when {given} appears, what is heard?",
        "Find {given}. Which sound does the part ahead of it have?",
    ),
    "seen_after": (
        "Which picture follows when {given} is over?",
        "Name the picture that comes right after {given}.",
        "{given} ends: what is visible then?",
        "As soon as {given} is gone, what is on screen?",
        "Find {given}. Which picture does the part behind it have?",
    ),
    "seen_before": (
        "Which picture precedes {given}?",
        "Name the picture that comes right before {given}.",
        "{given} begins: what was visible until then?",
        "Up to the moment when {given} sets in, what is on screen?",
        "Find {given}. Which picture does the part ahead of it have?",
    ),
    "pair_after": (
        "Name picture and sound that come after {given}.",
        "{given} are over: what is seen and heard then?",
        "As soon as {given} are gone, what can be seen and heard?",
        "Find the part with {given}. What does the part behind it show, and how does it sound?",
        "What replaces {given}?",
    ),
    "pair_before": (
        "Name picture and sound that come before {given}.",
        "{given} appear: what was seen and heard until then?",
        "Up to the moment when {given} set in, what can be seen and heard?",
        "Find the part with {given}. What does the part ahead of it show, and how does it sound?",
        "What leads up to {given}?",
    ),
    "heard_when_appears": (
        "Name the sound during which {given} appears.",
        "{given} comes on screen. What is heard at that moment?",
        "Which sound can be heard as {given} first becomes visible?",
        "Listen to the moment when {given} shows up: which sound is it?",
        "Into which sound does the appearance of {given} fall?",
    ),
    "seen_when_begins": (
        "Name the picture during which {given} begins.",
        "{given} starts. What is on screen at that moment?",
        "Which picture is visible as {given} can first be heard?",
        "Look at the moment when {given} sets in: which picture is it?",
        "Into which picture does the beginning of {given} fall?",
    ),
    "in_time": (
        "Does the sound fit the picture in time?",
        "How well are sound and picture aligned?",
        "Compare the changes of picture and sound: are they in time?",
        "Is the sound track early, late or in time?",
        "By how much is the sound off from the picture?",
        "Does the sound change when the picture does?",
    ),
    "seen_after_seen": (
        "Which picture comes next after {given}?",
        "{given} disappears. What is shown then?",
        "Name what is on screen as soon as {given} is gone.",
        "As {given} leaves, which picture appears?",
        "Find {given}. What does the part behind it show?",
    ),
    "heard_after_heard": (
        "Which sound comes next after {given}?",
        "{given} ends. What is heard then?",
        "Name what can be heard as soon as {given} is over.",
        "As {given} stops, which sound sets in?",
        "Find {given}. How does the part behind it sound?",
    ),
    # -- timestamped --------------------------------------------------------------------------------------------------
    "pair_at": (
        "Name picture and sound {span}.",
        "What can be seen and heard {span}?",
        "Which picture and sound does the part {span} have?",
        "Describe what is shown and heard at {middle}.",
        "Look and listen at {middle}: what is there?",
    ),
    "pair_after_time": (
        "Name picture and sound of what follows the part {span}.",
        "As soon as the part {span} is over, what can be seen and heard?",
        "Which picture and sound come next after {middle}?",
        "Find the part {span}. What is seen and heard in the one behind it?",
        "What replaces the picture and the sound of {middle}?",
    ),
    "pair_before_time": (
        "Name picture and sound of what precedes the part {span}.",
        "Up to the part {span}, what could be seen and heard last?",
        "Which picture and sound come last before {middle}?",
        "Find the part {span}. What is seen and heard in the one ahead of it?",
        "What leads up to the picture and the sound of {middle}?",
    ),
    "seen_at": (
        "Name what is shown {span}.",
        "Describe the picture at {middle}.",
        "What is visible {span}?",
        "Look at the part {span}: which picture does it have?",
        "At {middle}, what is on screen?",
    ),
    "heard_at": (
        "Name what is heard {span}.",
        "Describe the sound at {middle}.",
        "What can be heard {span}?",
        "Listen to the part {span}: which sound does it have?",
        "At {middle}, what do you hear?",
    ),
    "copies_at": (
        "Count the shapes {span}.",
        "At {middle}, how many shapes are on screen?",
        "Name the number of shapes shown {span}.",
        "How many shapes are visible {span}?",
    ),
    "pulses_at": (
        "Count the pulses {span}.",
        "How often does it sound {span}?",
        "Name the number of pulses heard {span}.",
        "How many sounds can be heard {span}?",
    ),
    "heard_again": (
        "Find the other showing of the picture {span}. What is heard there?",
        "What is seen at {middle} appears once more. Which sound does it have then?",
        "Name the sound that accompanies the other appearance of the picture shown {span}.",
        "Look at the picture {span}, then find it again: what can be heard with it?",
        "Which sound does the other part have that looks like the part {span}?",
    ),
    "seen_again": (
        "Find the other hearing of the sound {span}. What is shown there?",
        "What is heard at {middle} comes once more. Which picture does it have then?",
        "Name the picture that accompanies the other part with the sound heard {span}.",
        "Listen to the sound {span}, then find it again: what is visible with it?",
        "Which picture does the other part have that sounds like the one {span}?",
    ),
    "pulses_again": (
        "Count the pulses at the other showing of the picture {span}.",
        "What is seen {span} appears once more. How often does it sound then?",
        "Find the other part that looks like the part {span}. How many pulses does it have?",
        "Look at the picture {span}, then find it again: how many times does the sound come with it?",
    ),
    "copies_again": (
        "Count the shapes at the other hearing of the sound {span}.",
        "What is heard {span} comes once more. How many shapes are visible then?",
        "Find the other part with the sound heard {span}. How many shapes does it have?",
        "Listen to the sound {span}, then find it again: how many shapes are shown with it?",
    ),
    "direction_at": (
        "Compare how the shape and the pitch move {span}.",
        "Do shape and pitch match in direction {span}?",
        "Name the directions of picture and sound at {middle}.",
        "Where do shape and pitch go {span}, the same way or not?",
        "At {middle}, do the motion of the shape and the glide of the sound agree?",
    ),
    # -- time_range ---------------------------------------------------------------------------------------------------
    "when_pair": (
        "Find {given} at once: from when to when is it?",
        "Name the time range with {given}.",
        "At what time are {given} there together?",
        "When is the part with {given}?",
        "From when to when do {given} go together?",
    ),
    "when_seen": (
        "Find {given}: from when to when is it shown?",
        "Name the time range in which {given} is visible.",
        "At what time is {given} on screen?",
        "When can {given} be seen?",
        "From when to when do you see {given}?",
    ),
    "when_heard": (
        "Find {given}: from when to when is it heard?",
        "Name the time range in which {given} sounds.",
        "At what time can {given} be heard?",
        "When is there {given}?",
        "From when to when do you hear {given}?",
    ),
    "when_direction_agrees": (
        "Find the part in which shape and pitch go the same way. When is it?",
        "Name the time range in which motion and glide match.",
        "When do the shape and the sound both rise, or both fall?",
        "From when to when do picture and sound agree in direction?",
        "Compare shape and pitch: at what time do they move alike?",
    ),
    "when_number_agrees": (
        "Find the part with as many pulses as shapes. When is it?",
        "Name the time range in which the counts of shapes and pulses are the same.",
        "When does it sound as often as there are shapes?",
        "From when to when do picture and sound agree in number?",
        "Count shapes and sounds: at what time do their numbers match?",
    ),
    "when_seen_again": (
        "Find the picture that goes with {given}. When does it appear once more?",
        "Name the other time range of the picture seen with {given}.",
        "The picture that accompanies {given} has another showing. When?",
        "Look at what is on screen while {given} is heard: at what other time is it visible?",
    ),
    "when_heard_again": (
        "Find the sound that goes with {given}. When does it come once more?",
        "Name the other time range of the sound heard with {given}.",
        "The sound that accompanies {given} has another hearing. When?",
        "Listen to what is heard while {given} is shown: at what other time does it sound?",
    ),
}
