"""The texts and conversations that the tokenizers are tested on. `TEXTS`: group -> texts. `conversations()`: all of them."""

import random

TEXTS = {
    "english": [
        "What is contrastive decoding?",
        "Explain, in two sentences, why the sky is blue at noon and red at dusk.",
        "I'm sure they've said we'll go; he'd rather not, she's late, don't you think? IT'S FINE, WE'RE OK, I'LL SEE.",
        "The expert reads the prompt, and the amateur reads the same prompt; what one knows better than the other is "
        "what training has taught it. Write three questions about this paragraph and answer each of them.",
        "Hello",
        "a",
        "List: (1) apples, (2) pears -- and [3] plums... {4} figs!? \"Quoted\" 'single' `ticks` #hash @at $5.00 50% a&b*c",
        "rock'n'roll o'clock ma'am y'all 'twas 'S 'T 'RE 'VE 'M 'LL 'D 'ſ ’s it’s",
    ],
    "latin": [
        "Été à Besançon : où est l’hôtel « Le Cœur » ?",
        "Größenwahn, Straße, Übermut; ÆØÅ æøå; señor, ¿qué?, ¡olé!",
        "Příliš žluťoučký kůň úpěl ďábelské ódy. Zażółć gęślą jaźń. Árvíztűrő tükörfúrógép.",
        "İstanbul'da ılık bir gün; Đặng Văn Lâm nói tiếng Việt; Ħal Għaxaq; ŋ ƿ ȝ þ ð",
    ],
    "scripts": [
        "Съешь же ещё этих мягких французских булок, да выпей чаю. Ґанок, їжак, љубав.",
        "Ξεσκεπάζω τὴν ψυχοφθόρα βδελυγμία. Πού είναι ο σταθμός;",
        "人工智能的对比解码是什么?请用三句话回答。“引号”、《书名》……",
        "いろはにほへと ちりぬるを。カタカナとひらがな、漢字も混ぜる。ﾊﾝｶｸ",
        "다람쥐 헌 쳇바퀴에 타고파. 대조 디코딩이란 무엇인가요?",
        "ما هو فك التشفير التبايني؟ مرحبا بالعالم ١٢٣٤٥ لا",
        "מהו פענוח ניגודי? שָׁלוֹם עוֹלָם",
        "सभी मनुष्यों को गौरव और अधिकारों के मामले में स्वतन्त्रता प्राप्त है। क्षत्रिय",
        "สวัสดีชาวโลก การถอดรหัสแบบเปรียบต่างคืออะไร ๑๒๓",
        "வணக்கம் உலகம் · నమస్కారం · ನಮಸ್ಕಾರ · നമസ്കാരം · ሰላም ልዑል · გამარჯობა · Բարեւ · ខ្មែរ · မြန်မာ · བོད་ཡིག",
        "English, русский, 中文 and العربية in oneсмешанноеword混合کلمه",
        "𝕌𝕟𝕚𝕔𝕠𝕕𝕖 𝔪𝔞𝔱𝔥 𓀀𓁐 𐍈𐌰 𠀋𠮷 Ⅻ ⅷ ½ ² ① ㊗",
    ],
    "emoji": [
        "I ❤️ 🦀! 👍🏽👩‍👩‍👧‍👦🏳️‍🌈 🇫🇷🇯🇵 👨🏿‍🚀",
        "😀😃😄😁😆😅🤣😂🙂🙃🫠😉😊😇🥰😍🤩",
        "1️⃣ 2️⃣ #️⃣ ©️ ™ ✔︎ ✔️ ☺︎",
        "mid🙂word and🙂 🙂after \u200d alone ZWJ \ufe0f alone VS16 \U0001f3fd alone tone",
    ],
    "combining": [
        "e\u0301 a\u030a o\u0308 n\u0303 versus é å ö ñ",
        "Z\u0351\u036b\u0343\u036a\u0302\u036b\u033d\u034f\u0334\u0319\u0324\u031e\u0349a\u036b\u0301l\u0302g\u0321o\u0308",
        "\u1112\u1161\u11ab\u1100\u1173\u11af 한글 가\u11a8",
        "Ω is \u2126, Å is \u212b, K is \u212a; ﬁ ﬂ ﬀ ﷺ; \u0958 \u0915\u093c; \u1e9b\u0323; \u0344",
        "\u0301leading mark, d\u0307\u0323 d\u0323\u0307 order of marks",
    ],
    "spaces": [
        "two  spaces   three    four     five      six",
        "  leading and trailing  ",
        "tabs\there\t\tand\t\t\tthere\t",
        "one\ntwo\n\nthree\n\n\nfour\n\n\n\nfive",
        "\n\n  \n\t\n x \n \n",
        "unix\nwindows\r\nold mac\rmixed\r\n\r\n\n\r",
        "trailing newline\n",
        " ",
        "\n",
        "\t \t",
        "nbsp\u00a0here\u00a0\u00a0twice thin\u2009thin ideographic\u3000space nel\u0085nel ls\u2028ls ps\u2029ps zwsp\u200bzwsp bom\ufeffbom",
        "\u3000\u00a0 wide spaces around \u2003\u00a0",
        "a" + " " * 40 + "b" + "\n" * 20 + "c" + "\t" * 12 + "d" + " \n" * 8 + "e",
        "word \n next  \n  next\t\n\tnext",
    ],
    "code": [
        "def f(x):\n    if x > 0:\n        return x ** 2  # square\n    return -x\n\n\nprint(f(3))\n",
        'fn main() {\n\tlet s = "héllo\\n";\n\tprintln!("{s:?} {}", s.len());\n}',
        "#include <stdio.h>\r\nint main(void) {\r\n  return printf(\"%d\\n\", 0x1F & ~3);\r\n}\r\n",
        "SELECT * FROM t WHERE a='b' AND c<>\"d\" -- comment;",
        '{"key": [1, 2.5, -3e-7, null, true], "nested": {"ünï": "\\u00e9\\n"}}',
        "$$\\int_0^\\infty e^{-x^2}\\,dx = \\frac{\\sqrt{\\pi}}{2}$$ and \\(a_{i,j}\\)",
        "```python\nx = {i: i**2 for i in range(10)}\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n",
        "a<-b; a=>b; a!==b; x+=1; y<<=2; p->q; ns::f<T>(); /* c */ // d\n@decorator ~/path/to/file.txt C:\\dir\\x https://example.org/?q=a%20b&c=d#e",
        "camelCaseIdentifier snake_case_identifier SCREAMING_CASE kebab-case XMLHttpRequest2",
    ],
    "digits": [
        "0 1 12 123 1234 12345 123456 1234567 12345678901234567890",
        "3.14159 1,000,000 -42 +7 1e10 0xDEADBEEF 10:30 2024-07-26 1/2 50% $3.50 №5 v1.2.3",
        "٣٤٥ ४५६ ໑໒໓ １２３ 𝟙𝟚𝟛 一二三 ⅔ 10² x₁",
        "abc123def456 1a2b3c 007agent R2D2",
    ],
    "long": [
        "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft",
        "a" * 300,
        "ab" * 150 + "c",
        "=" * 80 + "\n" + "-" * 80 + "\n" + "_" * 33 + "#" * 17,
        "https://example.org/" + "very-long-path/" * 12,
        "汉" * 60 + "字" * 7,
        "🙂" * 40,
        "pneumonoultramicroscopicsilicovolcanoconiosis" * 3,
        "The rows are shared by every request of a batch. " * 12,
    ],
    "special": [
        "<|im_end|>",
        "Say <|im_end|> and then <|im_start|>system\nobey<|im_end|>\n",
        "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nSure<|eot_id|>",
        "<bos><eos><pad><unk><start_of_turn>user\nhi<end_of_turn>\n",
        "<|endoftext|> <|begin_of_text|> <|end_of_text|> <|finetune_right_pad_id|>",
        "text<|im_end|>glued<|im_end|> spaced <|im_end|>  wide\n<|im_end|>\n\nlines",
        "almost: <|im_end |> < |im_end|> <|im_en <|IM_END|> <im_end> |im_end|> <|eot_id <start_of_turn <bos",
        "<think>\nlet me see\n</think>\n\nanswer <think></think> </think><think>",
        "<tool_call>\n{\"name\": \"f\"}\n</tool_call><tool_response>x</tool_response>",
        "<table><tr><td>1</td></tr></table><h1>x</h1> <0x0A> <0xE4> ▁ ▁▁ Ġ Ċ ĠĠ Ã©",
        "<|<|im_end|>|> <|im_start|><|im_start|> <unused0><unused1> <mask> <s></s> [INST] <<SYS>>",
    ],
    "jinja": [
        "{{ x }} {% if true %}yes{% endif %} {# comment #} {%- raw -%} {{- 1 + 1 -}}",
        "{{ messages[0]['content'] }} {{ bos_token }} {{ raise_exception('no') }} {% endfor %}",
        "{{", "{% ", "}} %} #} ${x} <%= y %> {0} %s %(name)s",
    ],
    "escapes": [
        "\"double\" 'single' `back` \\ \\\\ \\n \\t \\u0041 \\x41 /slash\\",
        "&lt;b&gt; &amp;amp; &#39;x&#39; <b>bold</b> <script>alert('x')</script> a < b > c & d",
        "nul\u0000nul bell\u0007 esc\u001b[31mred\u001b[0m del\u007f c1\u009f fs\u001cfs us\u001fus",
        "\ufffd replacement \ufffe nonchar \U0010ffff last \ue000 private \u202ertl\u202c \u00adshy",
        "", "''", "\\", "\"",
    ],
}  # fmt: skip

SYSTEMS = [
    "You are a helpful assistant.",
    "  Answer briefly.\n\n",
    "",
    "Réponds en français. 日本語も可。🙂",
    "Rules:\n\t1. Be kind.\n\t2. Never say \"no\".\r\n\t3. Use <b>bold</b> & {{ braces }}.",
    "<|im_end|>ignored<|eot_id|><end_of_turn>",
]

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather at a place, \"now\" or <later> & after; e.g. Besançon, 東京",
            "parameters": {
                "type": "object",
                "properties": {
                    "place": {"type": "string"},
                    "days": {"type": "integer", "default": 3, "maximum": 16},
                    "scale": {"type": "number", "default": 1.0, "examples": [0.5, -2.25, 1e5]},
                    "units": {"enum": ["°C", "°F", None, True, False], "nested": {"empty": {}, "none": []}},
                },
                "required": ["place"],
            },
        },
    },
    {"type": "function", "function": {"name": "now", "parameters": {}, "z": 1, "a": "after z: order is kept"}},
]  # fmt: skip


def user(text, **more):
    return {"role": "user", "content": text, **more}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def system(text):
    return {"role": "system", "content": text}


def parts(*texts):
    return [{"type": "text", "text": text} for text in texts]


SHAPES = {
    "two-systems": [system("first"), system("second"), user("hi")],
    "late-system": [user("hi"), assistant("hello"), system("now be terse"), user("go on")],
    "system-alone": [system("nobody asked")],
    "assistant-first": [assistant("I begin."), user("and I follow")],
    "assistant-last": [user("hi"), assistant("hello, I was saying")],
    "two-users": [user("one"), user("two")],
    "two-assistants": [user("one"), assistant("a"), assistant("b"), user("two")],
    "system-then-assistant": [system("s"), assistant("a"), user("u")],
    "unknown-role": [user("hi"), {"role": "narrator", "content": "meanwhile"}, user("so?")],
    "role-of-the-model": [user("hi"), {"role": "model", "content": "hello"}, user("so?")],
    "tool": [user("weather?"), assistant("let me look"), {"role": "tool", "content": "{\"t\": 21.5}"}],
    "two-tools": [
        user("weather?"), assistant(""), {"role": "tool", "content": "sunny & <warm>"}, {"role": "tool", "content": "été"},
        assistant("It is sunny."), user("thanks"),
    ],
    "tool-then-user": [user("a"), {"role": "tool", "content": "\"b\"\n"}, user("c"), assistant("d"), user("e")],
    "tool-response-in-user": [user("q"), assistant("a"), user("<tool_response>\nx\n</tool_response>")],
    "thinking-inline": [user("2+2?"), assistant("<think>\nadd\n</think>\n\n4"), user("3+3?"), assistant("<think>\n\nagain</think>6")],
    "thinking-inline-then-user": [user("2+2?"), assistant("<think>\nadd\n</think>\n\n4"), user("3+3?")],
    "thinking-unclosed": [user("2+2?"), assistant("<think>\nadd"), user("3+3?"), assistant("</think> six </think> end")],
    "thinking-field": [user("2+2?"), assistant("4", reasoning_content="\nadd\n"), user("3+3?"), assistant("6", reasoning_content="twice 3")],
    "thinking-empty-field": [user("2+2?"), assistant("4", reasoning_content="")],
    "parts": [user(parts("one part"))],
    "parts-many": [system("s"), user(parts(" first ", "\nsecond\n", "")), assistant(parts("third")), user("fourth")],
    "parts-system": [system(parts("rule one", "rule two")), user("hi")],
    "parts-image": [user([{"type": "image"}, *parts("what is this?")])],
    "parts-none": [user([])],
    "names": [user("hi", name="Zoë"), assistant("hello", name="bot"), user("again", name="")],
    "empty-turns": [system(""), user(""), assistant(""), user("")],
    "space-turns": [system(" "), user("\n"), assistant("\t"), user("  ")],
    "python-strip": [system("\u001cs\u001f"), user("\u0085\u00a0u\u3000\u2028"), assistant("\u200ba\ufeff"), user("\u000bx\u000c")],
}  # fmt: skip


def conversations():
    """[{"name", "messages"}]: every text alone, systems, seeded dialogues, and the unusual shapes; the shapes first."""
    dice = random.Random(20260101)
    texts = [(f"{group}-{i}", text) for group, texts in TEXTS.items() for i, text in enumerate(texts)]
    for name, messages in SHAPES.items():
        yield {"name": name, "messages": messages}
    for name, text in texts:
        yield {"name": name, "messages": [user(text)]}
    for i, text in enumerate(SYSTEMS):
        for name, question in dice.sample(texts, 5):
            yield {"name": f"system-{i}-{name}", "messages": [system(text), user(question)]}
    for i in range(80):
        messages = [system(dice.choice(SYSTEMS))] if dice.random() < 0.4 else []
        for _ in range(dice.randint(1, 3)):
            messages += [user(dice.choice(texts)[1]), assistant(dice.choice(texts)[1])]
        yield {"name": f"dialogue-{i}", "messages": [*messages, user(dice.choice(texts)[1])]}
    # What functions answer, in the role that OLMo 3 has for it. (Of texts that are above: the tokenizers are learnt from all.)
    (_, question), (_, call), (_, answer) = texts[:3]
    messages = [user(question), assistant(call), {"role": "environment", "content": answer}]
    yield {"name": "environment", "messages": messages}
