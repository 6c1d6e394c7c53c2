"""Writes continued.jsonl: what transformers renders with continue_final_message=True, or null where it refuses.

    python make_continued.py > continued.jsonl
"""

import json

from transformers.utils.chat_template_utils import render_jinja_template

CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
TRIMMED = CHATML.replace("m.content", "m.content | trim")
PARTS = "{% for m in messages %}[{{ m.role }}]{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}{{ p.text }}|{% endfor %}{% endif %}[/]{% endfor %}"
CUT = "{% for m in messages %}[{{ m.role }}]{{ m.content[:4] }}[/]{% endfor %}"
THOUGHTS = "{% for m in messages %}[{{ m.role }}]{{ m.content.split('</think>')[-1] }}[/]{% endfor %}"
TWICE = "{% for m in messages %}{{ m.content }}{% endfor %}/{{ messages[-1].content }}."
TEMPLATES = {"chatml": CHATML, "trimmed": TRIMMED, "parts": PARTS, "cut": CUT, "thoughts": THOUGHTS, "twice": TWICE}
CONTENTS = {
    "plain": "One, two",
    "space-behind": "One, two, ",
    "lines-around": "\n\nOne\n\n",
    "empty": "",
    "blank": " \n",
    "separator-behind": "One\x1c\u3000",
    "thoughts": "<think>hm</think>So",
    "like-the-mark": "CONTINUE_FINAL_MESSAGE_TAG One",
    "parts": [{"type": "text", "text": "One"}, {"type": "text", "text": "two "}],
    "no-parts": [],
    "null": None,
}

for template_name, template in TEMPLATES.items():
    for content_name, content in CONTENTS.items():
        messages = [{"role": "user", "content": "Count."}, {"role": "assistant", "content": content}]
        normal = [{key: value for key, value in message.items() if value is not None} for message in messages]
        try:
            rendered = render_jinja_template([normal], chat_template=template, continue_final_message=True)[0][0]
        except Exception:
            rendered = None
        row = {"name": f"{template_name}-{content_name}", "template": template, "messages": messages, "expected": rendered}
        print(json.dumps(row))
