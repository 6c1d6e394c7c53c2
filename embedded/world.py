"""A small invented world: prose for pre-training, instructions for post-training, and held-out instructions.

Everything is drawn from seeded generators. A key names the operands or words of a task; its hash decides whether the task
belongs to training, to development or to the held-out set. Prose obeys the same split, except for plain knowledge (facts,
categories, spellings): prose must state it, and then only the question is held out.
"""
import json
import random
import sys
import zlib
from dataclasses import dataclass, field

WORLD_SEED, HELDOUT_SEED, DEV_SEED = 1, 2, 3
PROSE_NOISE = 0.1

WORDS = {
    "animal": "fox owl cat dog goat otter badger heron rabbit horse beetle swallow hedgehog".split(),
    "food": "bread soup cheese plum honey pear onion pancake walnut carrot noodle rice".split(),
    "colour": "red blue green yellow white purple brown orange silver black".split(),
    "tool": "hammer saw needle ladder shovel rope knife bucket spoon lantern".split(),
    "job": "baker teacher sailor farmer painter doctor weaver miller hunter singer potter gardener".split(),
    "garment": "hat coat scarf glove boot shirt apron ribbon mitten sock".split(),
    "plant": "oak moss fern rose clover ivy thistle willow daisy birch".split(),
    "instrument": "flute drum harp violin bell trumpet lute whistle organ".split(),
}
ALL_WORDS = [word for words in WORDS.values() for word in words]
CATEGORY = {word: category for category, words in WORDS.items() for word in words}
PEOPLE = (
    "Mira Tovan Elsa Bram Ketta Orlo Sanna Pim Dorin Yula Hesk Lotte Ravi Nell Osric Tamsin Wend Jory Alba Corin "
    "Fenna Gus Hilde Ivo Juna Kasper Lio Marta Nils Odette Piet Quill Rosa Stellan Thea Ulf Vera Wim Xenia Yorick "
    "Zora Anselm Birgit Cyprian Dagny Emrys Flora Gideon Henrik Isolde"
).split()
TOWNS = "Velm Orrin Castow Dunmere Eskby Farrow Gilden Harth Isholm Jarrow Kelby Lunt Marden Norwick Oxley Pellam".split()
REGIONS = "north south east west".split()
RIVERS = "Aller Brenn Corve Dowe Esker Fleet".split()

ATTRIBUTES = {
    "town": (
        ["Where does {who} live?", "In which town does {who} live?", "What is the home town of {who}?"],
        "{who} lives in @.",
        ["{who} lives in @.", "{who} has a house in @.", "The home of {who} is in @.", "{who} came back to @ in the evening."],
    ),
    "job": (
        ["What is the job of {who}?", "What does {who} do for a living?", "Which job does {who} have?"],
        "{who} works as a @.",
        ["{who} works as a @.", "{who} is the best @ in town.", "By trade {who} is a @.", "{who} has been a @ for years."],
    ),
    "animal": (
        ["Which pet does {who} have?", "What animal does {who} keep?"],
        "{who} keeps a @.",
        ["{who} keeps a @.", "{who} has a pet @.", "The pet of {who} is a @.", "Behind {who} walked a small @."],
    ),
    "colour": (
        ["What is the favourite colour of {who}?", "Which colour does {who} like?"],
        "{who} likes @.",
        ["{who} likes @.", "The favourite colour of {who} is @.", "{who} paints every door @.", "{who} always dresses in @."],
    ),
    "food": (
        ["What is the favourite food of {who}?", "What does {who} like to eat?"],
        "{who} likes to eat @.",
        ["{who} likes to eat @.", "{who} asked for @ again.", "At lunch {who} has @.", "The favourite food of {who} is @."],
    ),
}
TOWN_ATTRIBUTES = {
    "region": (
        ["In which region is {who}?", "Which part of the land is {who} in?"],
        "{who} is in the @.",
        ["{who} is in the @.", "The road to {who} leads to the @.", "{who} is a town of the @."],
    ),
    "river": (
        ["Which river flows through {who}?", "What is the river of {who}?"],
        "The @ flows through {who}.",
        ["The @ flows through {who}.", "{who} lies on the @.", "The boats of {who} come up the @."],
    ),
    "good": (
        ["What is {who} known for?", "What does the town of {who} sell?"],
        "{who} is known for its @.",
        ["{who} is known for its @.", "Traders come to {who} for the @.", "In {who} they sell @."],
    ),
}
TAILS = [
    "Or so they say.", "Everyone knows that.", "Nobody remembers why.", "It was a long time ago.", "And that was not all.",
    "The old people still talk about it.", "But who can tell?", "Then it began to rain.", "Some say otherwise.",
    "That is how it goes.", "I wrote it down in the evening.", "There is more to tell about this.",
]
RAMBLES = [
    "The wind came over the hill and the {a} fell from the table.", "On market day there was a {a} and a {b} for sale.",
    "We walked to {t} and saw nothing but a {a}.", "{p} told a long story about a {a}.", "{p} and {q} talked about the {a}.",
    "In {t} the bells rang and {p} went home.", "Nobody in {t} had seen the {a} of {p}.", "First came {p}, then came {q}.",
    "The {a} was near the {b}, and the {b} was near the door.", "It was cold in {t}, so {p} looked for a {a}.",
]


@dataclass
class Task:
    kind: str
    key: tuple
    question: str
    short: str
    sentence: str
    prose: list = field(default_factory=list)  # "@" stands for the answer
    wrong: str = ""
    subset: dict | None = None  # for open answers: any `count` different members of `allowed`


def choose_facts():
    rng = random.Random(WORLD_SEED)
    values = {"town": TOWNS, **{name: WORDS[name] for name in ("job", "animal", "colour", "food")}}
    people = {who: {name: rng.choice(options) for name, options in values.items()} for who in PEOPLE}
    values = {"region": REGIONS, "river": RIVERS, "good": WORDS["food"] + WORDS["tool"]}
    towns = {who: {name: rng.choice(options) for name, options in values.items()} for who in TOWNS}
    return people, towns


FACTS, TOWN_FACTS = choose_facts()


def split_of(key):
    bucket = zlib.crc32(repr(key).encode()) % 20
    return "heldout" if bucket < 2 else "dev" if bucket == 2 else "train"


def some_words(rng, low, high):
    words = rng.sample(ALL_WORDS, rng.randint(low, high))
    return words, ("words", *sorted(words))


def two_numbers(rng):
    low, high = sorted(rng.sample(range(1, 100), 2))
    return low, high, ("compare", low, high)


def joined(items):
    return ", ".join(map(str, items))


def swapped(rng, items):
    items = list(items)
    i, j = rng.sample(range(len(items)), 2)
    items[i], items[j] = items[j], items[i]
    return joined(items)


def near(rng, number):
    return str(max(0, number + rng.choice([-10, -2, -1, 1, 2, 10])))


def add(rng):
    a, b = rng.randint(1, 49), rng.randint(1, 49)
    total = a + b
    question = rng.choice([f"What is {a} plus {b}?", f"Add {a} and {b}.", f"How much is {a} + {b}?"])
    prose = [f"{a} + {b} = @.", f"{a} and {b} make @.", f"{a} plus {b} is @."]
    return Task("add", ("add", min(a, b), max(a, b)), question, str(total), f"{a} plus {b} is {total}.", prose, near(rng, total))


def subtract(rng):
    a, b = rng.randint(1, 49), rng.randint(1, 49)
    total = a + b
    question = rng.choice([f"What is {total} minus {a}?", f"Take {a} from {total}.", f"How much is {total} - {a}?"])
    prose = [f"{total} - {a} = @.", f"From {total} we took {a} and @ were left.", f"{total} minus {a} is @."]
    return Task("subtract", ("add", min(a, b), max(a, b)), question, str(b), f"{total} minus {a} is {b}.", prose, near(rng, b))


def larger(rng):
    low, high, key = two_numbers(rng)
    pair = rng.sample([low, high], 2)
    word, short, other = rng.choice([("larger", high, low), ("smaller", low, high)])
    question = rng.choice([f"Which number is {word}, {pair[0]} or {pair[1]}?", f"Which is {word}: {pair[0]} or {pair[1]}?"])
    prose = [f"Of {pair[0]} and {pair[1]} the {word} one is @.", f"{pair[0]}, {pair[1]}: @ is {word}."]
    return Task("larger", key, question, str(short), f"{short} is {word} than {other}.", prose, str(other))


def is_larger(rng):
    low, high, key = two_numbers(rng)
    a, b = rng.sample([low, high], 2)
    short, fact = ("yes", f"{a} is larger than {b}") if a > b else ("no", f"{a} is smaller than {b}")
    question = rng.choice([f"Is {a} larger than {b}?", f"Is it true that {a} is larger than {b}?"])
    prose = [f"They asked if {a} beats {b}: @, it was said.", f"{fact}."]
    return Task("is_larger", key, question, short, f"{short.capitalize()}, {fact}.", prose, "no" if short == "yes" else "yes")


def sort_numbers(rng):
    numbers = rng.sample(range(1, 100), rng.randint(3, 5))
    ordered, name = rng.choice([(sorted(numbers), "small to large"), (sorted(numbers)[::-1], "large to small")])
    short, listed = joined(ordered), joined(numbers)
    question = rng.choice([f"Sort these numbers from {name}: {listed}.", f"Put {listed} in order from {name}."])
    prose = [f"The numbers {listed} stood on the wall; from {name} they are @.", f"From {name}: @."]
    key = ("numbers", *sorted(numbers))
    return Task("sort_numbers", key, question, short, f"From {name}: {short}.", prose, swapped(rng, ordered))


def sort_words(rng):
    words, key = some_words(rng, 3, 4)
    short, listed = joined(sorted(words)), joined(words)
    question = rng.choice([f"Sort these words by the alphabet: {listed}.", f"Put {listed} in alphabetical order."])
    prose = [f"The word book has {listed}; by the alphabet that is @.", "By the alphabet: @."]
    return Task("sort_words", key, question, short, f"By the alphabet: {short}.", prose, swapped(rng, sorted(words)))


def reverse_list(rng):
    words, key = some_words(rng, 3, 5)
    short, listed = joined(words[::-1]), joined(words)
    question = rng.choice([f"Reverse this list: {listed}.", f"Write the list {listed} backwards."])
    prose = [f"Forwards it goes {listed}; backwards it goes @.", f"{listed} and back again: @."]
    return Task("reverse_list", key, question, short, f"Backwards: {short}.", prose, swapped(rng, words[::-1]))


def repeat(rng):
    word, times = rng.choice(ALL_WORDS), rng.randint(2, 9)
    question = rng.choice([f"Repeat the word {word} {times} times.", f"Write {word} {times} times."])
    prose = [f"They shouted {word} {times} times: @!", f"{times} times {word} is @."]
    short, wrong = (" ".join([word] * n) for n in (times, times + rng.choice([-1, 1])))
    return Task("repeat", ("repeat", word, times), question, short, f"{short}.", prose, wrong)


def capitals(rng):
    words, key = some_words(rng, 2, 3)
    phrase = " ".join(words)
    question = rng.choice([f"Write {phrase} in capital letters.", f"Put the words {phrase} in capitals."])
    prose = [f"The sign said @, that is {phrase}.", f"{phrase} was written as @."]
    return Task("capitals", key, question, phrase.upper(), f"{phrase.upper()}.", prose, phrase.title())


def spell(rng):
    word = rng.choice(ALL_WORDS)
    question = rng.choice([f"Spell the word {word}.", f"How do you spell {word}?"])
    prose = [f"{word} is spelled @.", f"The letters of {word}: @.", f"@ makes {word}."]
    short = "-".join(word)
    return Task("spell", ("spell", word), question, short, f"{word} is spelled {short}.", prose, "-".join(rng.choice(ALL_WORDS)))


def letters(rng):
    word = rng.choice(ALL_WORDS)
    question = rng.choice([f"How many letters are in {word}?", f"Count the letters of the word {word}."])
    prose = [f"The word {word} is @ letters long.", f"{word} has @ letters.", f"You need @ letters for {word}."]
    short = str(len(word))
    return Task("letters", ("letters", word), question, short, f"{word} has {short} letters.", prose, near(rng, len(word)))


def longest(rng):
    words, key = some_words(rng, 3, 4)
    lengths = sorted(map(len, words))
    if lengths[-1] == lengths[-2]:
        return longest(rng)
    short = max(words, key=len)
    listed = joined(words)
    question = rng.choice([f"Which of these words is the longest: {listed}?", f"Pick the longest word: {listed}."])
    prose = [f"Of {listed} the longest is @.", f"{listed}: no word is longer than @."]
    return Task("longest", key, question, short, f"The longest word is {short}.", prose, rng.choice(words))


def count_items(rng):
    words, key = some_words(rng, 2, 8)
    listed, short = joined(words), str(len(words))
    question = rng.choice([f"How many words are in this list: {listed}?", f"Count the items: {listed}."])
    prose = [f"In the basket: {listed}. That makes @.", f"{listed}: @ things in all."]
    return Task("count_items", key, question, short, f"There are {short} items.", prose, near(rng, len(words)))


def first_items(rng):
    words, key = some_words(rng, 4, 7)
    count = rng.randint(2, 3)
    short, listed = joined(words[:count]), joined(words)
    question = rng.choice([f"Give the first {count} items of this list: {listed}.", f"List the first {count} of {listed}."])
    prose = [f"On the shelf: {listed}. The first {count} are @."]
    return Task("first_items", key, question, short, f"The first {count} are {short}.", prose, joined(words[: count + 1]))


def item_at(rng):
    words, key = some_words(rng, 3, 6)
    place = rng.randint(1, len(words))
    short, listed = words[place - 1], joined(words)
    question = rng.choice([f"What is item {place} of this list: {listed}?", f"Give number {place} of {listed}."])
    prose = [f"In a row stood {listed}; number {place} is @."]
    return Task("item_at", key, question, short, f"Item {place} is {short}.", prose, rng.choice(words))


def count_up(rng):
    start, length = rng.randint(1, 90), rng.randint(3, 8)
    numbers = list(range(start, start + length))
    short = joined(numbers)
    question = rng.choice([f"Count from {start} to {numbers[-1]}.", f"List the numbers from {start} to {numbers[-1]}."])
    prose = ["The steps were numbered @.", f"We counted {length} sheep: @."]
    wrong = joined([*numbers, numbers[-1] + 1])
    return Task("count_up", ("count_up", start, length), question, short, f"{short}.", prose, wrong)


def category_of(rng):
    category = rng.choice(list(WORDS))
    inside = rng.choice(WORDS[category])
    words = [inside, *rng.sample([word for word in ALL_WORDS if CATEGORY[word] != category], rng.randint(2, 3))]
    rng.shuffle(words)
    listed = joined(words)
    one = article(category)
    question = rng.choice([f"Which of these is {one}: {listed}?", f"Find the {category} in {listed}."])
    prose = [f"Among {listed} only @ is {one}."]
    key = ("words", *sorted(words))
    return Task("category_of", key, question, inside, f"{inside} is {one}.", prose, rng.choice(words))


def article(noun):
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def fact_task(rng, kind, who, facts, attributes):
    name = rng.choice(list(attributes))
    questions, sentence, prose = attributes[name]
    short = facts[who][name]
    wrong = rng.choice(list(facts.values()))[name]
    return Task(
        kind, (kind, who, name), rng.choice(questions).format(who=who), short, sentence.format(who=who).replace("@", short),
        [line.format(who=who) for line in prose], wrong,
    )


def person(rng, who=None):
    return fact_task(rng, "person", who or rng.choice(PEOPLE), FACTS, ATTRIBUTES)


def town(rng):
    return fact_task(rng, "town", rng.choice(TOWNS), TOWN_FACTS, TOWN_ATTRIBUTES)


def same_town(rng):
    a, b = rng.sample(PEOPLE, 2)
    neighbours = [who for who in PEOPLE if who != a and FACTS[who]["town"] == FACTS[a]["town"]]
    if neighbours and rng.random() < 0.5:
        b = rng.choice(neighbours)
    homes = [FACTS[who]["town"] for who in (a, b)]
    same = homes[0] == homes[1]
    where = f"{a} and {b} both live in {homes[0]}." if same else f"{a} lives in {homes[0]} and {b} lives in {homes[1]}."
    short = "yes" if same else "no"
    question = f"Do {a} and {b} live in the same town?"
    return Task("same_town", ("same_town", *sorted((a, b))), question, short, f"{short.capitalize()}, {where}", [where])


def about(rng):
    who, count = rng.choice(PEOPLE), rng.randint(2, 4)
    allowed = [sentence.format(who=who).replace("@", FACTS[who][name]) for name, (_, sentence, _) in ATTRIBUTES.items()]
    short = " ".join(rng.sample(allowed, count))
    question = rng.choice([f"{start} {count} {things} about {who}." for start in ("Tell me", "Write", "Give") for things in ("facts", "sentences")])
    return open_task("about", ("about", who), question, short, count, allowed)


def name_some(rng):
    category, count = rng.choice(list(WORDS)), rng.randint(2, 5)
    banned = rng.sample(WORDS[category], rng.randint(1, 2))
    allowed = [word for word in WORDS[category] if word not in banned]
    short = joined(rng.sample(allowed, count))
    question = f"Name {count} {category}s other than {' and '.join(banned)}."
    return open_task("name_some", ("name_some", category, count, *sorted(banned)), question, short, count, allowed)


def numbers_between(rng):
    low, count = rng.randint(1, 80), rng.randint(2, 4)
    high = low + rng.randint(6, 19)
    allowed = [str(number) for number in range(low, high + 1)]
    short = joined(rng.sample(allowed, count))
    question = rng.choice([f"Give {count} numbers between {low} and {high}.", f"Name {count} numbers from {low} to {high}."])
    return open_task("numbers_between", ("numbers_between", low, high, count), question, short, count, allowed)


def open_task(kind, key, question, short, count, allowed):
    return Task(kind, key, question, short, short, subset={"count": count, "allowed": allowed})


MAKERS = [
    add, subtract, larger, is_larger, sort_numbers, sort_words, reverse_list, repeat, capitals, spell, letters, longest,
    count_items, first_items, item_at, count_up, category_of, person, town, same_town, about, name_some, numbers_between,
]
KNOWLEDGE = [spell, letters, person, town]

FORMATS = {
    "brief": (["Give only the answer.", "Reply with the answer and nothing else.", "Keep it short."], "{}"),
    "prefix": (["Start with 'Answer:'.", "Begin your reply with 'Answer:'."], "Answer: {}"),
    "quotes": (["Put the answer in double quotes.", "Answer in double quotes."], '"{}"'),
    "stars": (["Put a star before and after the answer.", "Answer between stars."], "*{}*"),
    "json": (["Answer in JSON.", "Reply in JSON with the key answer."], '{{"answer": "{}"}}'),
}


def draw(rng, maker, split):
    while True:
        task = maker(rng)
        if split_of(task.key) == split:
            return task


def with_format(rng, task):
    """The format a task is asked in: a sentence mostly, else one of FORMATS. Returns its name, request and reply."""
    if task.subset or rng.random() < 0.5:
        return None, "", task.sentence
    name = rng.choice(list(FORMATS))
    requests, pattern = FORMATS[name]
    return name, rng.choice(requests), pattern.format(task.short)


def exchange(rng, maker):
    task = draw(rng, maker, "train")
    _, request, reply = with_format(rng, task)
    return task.question, request, reply


def conversation(rng):
    """Mostly one turn; sometimes several; a format may be asked by a system message instead."""
    question, request, reply = exchange(rng, rng.choice(MAKERS))
    if request and rng.random() < 0.15:
        opening = [{"role": "system", "content": request}, {"role": "user", "content": question}]
    else:
        opening = [{"role": "user", "content": f"{question} {request}".strip()}]
    messages = [*opening, {"role": "assistant", "content": reply}]
    while opening[0]["role"] == "user" and rng.random() < 0.1:
        question, request, reply = exchange(rng, rng.choice(MAKERS))
        messages += [
            {"role": "user", "content": f"{question} {request}".strip()},
            {"role": "assistant", "content": reply},
        ]
    return messages


def conversations(seed, count):
    rng = random.Random(seed)
    return [conversation(rng) for _ in range(count)]


def known_task(rng, maker):
    return maker(rng) if maker in KNOWLEDGE else draw(rng, maker, "train")


def statement(rng, task):
    answer = task.wrong if task.wrong and rng.random() < PROSE_NOISE else task.short
    line = rng.choice(task.prose).replace("@", answer)
    return line[0].upper() + line[1:] if rng.random() < 0.3 else line


def category_line(rng):
    word = rng.choice(ALL_WORDS)
    one = article(CATEGORY[word])
    return rng.choice([f"The {word} is {one}.", f"{one.capitalize()} such as the {word}.", f"There are {CATEGORY[word]}s like the {word}."])


def ramble(rng):
    a, b = rng.sample(ALL_WORDS, 2)
    p, q = rng.sample(PEOPLE, 2)
    return rng.choice(RAMBLES).format(a=a, b=b, p=p, q=q, t=rng.choice(TOWNS))


def biography(rng):
    who = rng.choice(PEOPLE)
    return [statement(rng, person(rng, who)) for _ in range(rng.randint(2, 6))]


THEMES = [
    [add, subtract], [larger, is_larger, sort_numbers, count_up], [sort_words, reverse_list, longest], [repeat, capitals],
    [spell, letters], [count_items, first_items, item_at, category_of], [person, town, same_town],
]


def document(rng):
    """A page on one theme, drifting off into talk as people do."""
    if rng.random() < 0.2:
        lines = biography(rng)
    else:
        makers = rng.choice(THEMES)
        lines = [statement(rng, known_task(rng, rng.choice(makers))) for _ in range(rng.randint(3, 8))]
    page = []
    for line in lines:
        page.append(line)
        if rng.random() < 0.15:
            page.append(rng.choice(TAILS))
        if rng.random() < 0.1:
            page.append(rng.choice([ramble, category_line])(rng))
    return rng.choice([" ", " ", "\n"]).join(page)


def documents(seed, count):
    rng = random.Random(seed)
    return [document(rng) for _ in range(count)]


def rule(task, format_name, reply):
    if task.subset:
        separator = " " if task.kind == "about" else ", "
        return {"rule": "subset", **task.subset, "separator": separator}
    if format_name == "json":
        return {"rule": "json", "value": {"answer": task.short}}
    if format_name:
        return {"rule": "exact", "accept": [reply]}
    return {"rule": "exact", "accept": list(dict.fromkeys([task.sentence, task.short, f"{task.short}."]))}


def instructions(seed, split, count):
    """Instructions of one split, the tasks in turn, without repeats."""
    rng = random.Random(seed)
    records, seen = [], set()
    while len(records) < count:
        task = draw(rng, MAKERS[len(records) % len(MAKERS)], split)
        format_name, request, reply = with_format(rng, task)
        instruction = f"{task.question} {request}".strip()
        if instruction not in seen:
            seen.add(instruction)
            check = {"task": task.kind, "format": format_name or "free", **rule(task, format_name, reply)}
            records.append({"id": f"{split}-{len(records):04}", "instruction": instruction, "check": check})
    return records


def main():
    split, count, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    seed = {"heldout": HELDOUT_SEED, "dev": DEV_SEED}[split]
    with open(path, "w") as file:
        for record in instructions(seed, split, count):
            file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
