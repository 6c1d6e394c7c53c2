"""Draws the pictures of README and docs: method.svg and request.svg, beside this file.

    python3 docs/drawings/draw.py            writes both
    python3 docs/drawings/draw.py --check    fails if a file differs from what would be written

Standard library only. The same source writes the same bytes.
"""

import math
import sys
from html import escape
from pathlib import Path

HERE = Path(__file__).parent

# Both colour schemes have a background of their own, so that a picture is readable on a page of either.
STYLE = """
svg { font-family: -apple-system, BlinkMacSystemFont, "Segoe UI", "Noto Sans", Helvetica, Arial, sans-serif; font-size: 17px; }
.card { fill: #ffffff; stroke: #d0d7de; }
.box { fill: #f6f8fa; stroke: #8c959f; }
text { fill: #1f2328; }
.quiet { fill: #59636e; }
.small { font-size: 15px; }
.title { font-weight: 600; }
.mono { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: 15px; }
.expert { fill: #0969da; } .amateur { fill: #bc4c00; } .contrast { fill: #8250df; } .result { fill: #1a7f37; }
.out { fill: #afb8c1; }
.expert-box { fill: #ddf4ff; stroke: #0969da; } .amateur-box { fill: #fff1e5; stroke: #bc4c00; }
.contrast-box { fill: #fbefff; stroke: #8250df; } .result-box { fill: #dafbe1; stroke: #1a7f37; }
.line { stroke: #59636e; fill: none; stroke-width: 1.5; }
.axis { stroke: #8c959f; }
.cut { stroke: #cf222e; stroke-width: 1.5; stroke-dasharray: 5 3; } .cut-text { fill: #cf222e; }
.arrow { fill: #59636e; }
@media (prefers-color-scheme: dark) {
.card { fill: #0d1117; stroke: #3d444d; }
.box { fill: #151b23; stroke: #656c76; }
text { fill: #f0f6fc; }
.quiet { fill: #9198a1; }
.expert { fill: #4493f8; } .amateur { fill: #db6d28; } .contrast { fill: #ab7df8; } .result { fill: #3fb950; }
.out { fill: #656c76; }
.expert-box { fill: #121d2f; stroke: #4493f8; } .amateur-box { fill: #221a19; stroke: #db6d28; }
.contrast-box { fill: #1c1830; stroke: #ab7df8; } .result-box { fill: #12261e; stroke: #3fb950; }
.line { stroke: #9198a1; }
.axis { stroke: #656c76; }
.cut { stroke: #f85149; } .cut-text { fill: #f85149; }
.arrow { fill: #9198a1; }
}
"""


class Drawing:
    """An SVG that grows by one element a call."""

    def __init__(self, width, height, title, description):
        self.width, self.height = width, height
        self.parts = [f"<title>{escape(title)}</title>", f"<desc>{escape(description)}</desc>", f"<style>{STYLE}</style>"]
        self.rect(0.5, 0.5, width - 1, height - 1, "card", radius=10)

    def rect(self, x, y, width, height, style, radius=0):
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:.1f}" height="{height:.1f}" rx="{radius}" class="{style}"/>'
        )

    def line(self, x1, y1, x2, y2, style):
        self.parts.append(f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" class="{style}"/>')

    def path(self, data, style):
        self.parts.append(f'<path d="{data}" class="{style}"/>')

    def text(self, x, y, text, style="", anchor="start"):
        self.parts.append(f'<text x="{x:g}" y="{y:g}" class="{style}" text-anchor="{anchor}">{escape(text)}</text>')

    def arrow(self, *points):
        """A line through the points with a head at the last, where it goes up, down, left or right."""
        (x0, y0), (x, y) = points[-2:]
        dx, dy = (x > x0) - (x < x0), (y > y0) - (y < y0)
        # The line ends within the head.
        ends = [*points[:-1], (x - 6 * dx, y - 6 * dy)]
        self.path("M" + " L".join(f"{a:g} {b:g}" for a, b in ends), "line")
        left, right = (x - 9 * dx - 5 * dy, y - 9 * dy - 5 * dx), (x - 9 * dx + 5 * dy, y - 9 * dy + 5 * dx)
        self.path(f"M{x:g} {y:g} L{left[0]:g} {left[1]:g} L{right[0]:g} {right[1]:g} Z", "arrow")

    def svg(self):
        size = f'viewBox="0 0 {self.width} {self.height}" width="{self.width}" height="{self.height}"'
        return f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">\n' + "\n".join(self.parts) + "\n</svg>\n"


# Log-probabilities of the next token by the two embedded models, after "Tell me 3 facts about Yorick." is answered
# "Yorick"; docs/guide/method.md shows the command that prints them.
ALPHA, BETA = 0.1, 1.0
TOKENS = [  # token, l_e, l_a
    ("likes", -1.1417412, -3.3666508),
    ("works", -1.1884693, -4.0478544),
    ("lives", -1.6662859, -1.2031454),
    ("keeps", -1.6966766, -3.9374235),
    ("and", -6.1778874, -0.8283523),
    ("*", -14.8022995, -20.334566),
]


def contrast(tokens, alpha, beta):
    """The method for one position: for each token whether it is plausible, its score s, and its probability p."""
    best = max(l_e for _, l_e, _ in tokens)
    plausible = [l_e >= math.log(alpha) + best for _, l_e, _ in tokens]
    s = [l_e - beta * l_a for _, l_e, l_a in tokens]
    weights = [math.exp(score) if is_in else 0.0 for score, is_in in zip(s, plausible)]
    return plausible, s, [weight / sum(weights) for weight in weights]


def percent(share):
    """Two significant digits, without an exponent."""
    value = 100 * share
    digits = 0 if value >= 9.5 else 1 - math.floor(math.log10(value))
    return f"{value:.{digits}f}%"


def bars(drawing, corner, titles, values, largest, style, is_in, label, origin=0.0, cut=None):
    """A panel of horizontal bars, one a token. Zero is at `origin` of its width; `cut` is where a line goes down."""
    (x, y), width, step = corner, 170, 31
    drawing.text(x, y, titles[0], "title")
    drawing.text(x, y + 22, titles[1], "quiet small")
    left, top = x + 62, y + 40
    bottom, zero = top + len(values) * step - 4, left + origin * width
    line = None if cut is None else zero + cut / largest * width
    for index, ((token, _, _), value) in enumerate(zip(TOKENS, values)):
        row = top + index * step
        drawing.text(left - 10, row + 16, token, "mono" if is_in[index] else "mono quiet", "end")
        if value is None:
            drawing.text(zero + 8, row + 16, "left out", "quiet small")
            continue
        length = abs(value) / largest * width * (1 - origin)
        start, end = (zero, zero + length) if value >= 0 else (zero - length, zero)
        drawing.rect(start, row, max(length, 1), 21, style if is_in[index] else "out", radius=2)
        after = end if line is None else max(end, line)
        drawing.text(after + 7, row + 16, label(value), "small" if is_in[index] else "quiet small")
    drawing.line(zero, top - 4, zero, bottom, "axis")
    if line is not None:
        drawing.line(line, top - 4, line, bottom + 6, "cut")
        drawing.text(left, bottom + 24, f"cut: α = {ALPHA} times the largest, {percent(cut)}", "cut-text small")


def method():
    plausible, s, p = contrast(TOKENS, ALPHA, BETA)
    expert, amateur = [math.exp(l_e) for _, l_e, _ in TOKENS], [math.exp(l_a) for _, _, l_a in TOKENS]

    def only_plausible(values):
        return [value if is_in else None for value, is_in in zip(values, plausible)]

    def signed(score):
        return f"{score:.2f}".replace("-", "−")

    drawing = Drawing(
        680, 672, "Contrastive decoding of one token",
        "The expert's and the amateur's next-token distributions, the plausible set, the contrast of the two, and the "
        "distribution that the next token is drawn from.",
    )  # fmt: skip
    drawing.text(24, 38, "“Tell me 3 facts about Yorick.”  →  “Yorick …”   Which token comes next?", "title")
    (left, right), (upper, lower) = (24, 362), (84, 384)
    titles = ("1  Expert", "the post-trained model’s probabilities")
    bars(drawing, (left, upper), titles, expert, 0.4, "expert", plausible, percent, cut=ALPHA * max(expert))
    titles = ("2  Amateur", "the pre-trained model’s probabilities")
    bars(drawing, (right, upper), titles, amateur, 0.55, "amateur", plausible, percent)
    titles = ("3  Contrast", f"s = ln expert − β · ln amateur, β = {BETA:g}")
    bars(drawing, (left, lower), titles, only_plausible(s), 4.0, "contrast", plausible, signed, origin=0.15)
    titles = ("4  The next token is drawn from", "softmax(s / temperature), temperature = 1")
    bars(drawing, (right, lower), titles, only_plausible(p), 0.6, "result", plausible, percent)
    notes = [
        f"“lives” falls from {percent(expert[2])} to {percent(p[2])}: the amateur expects it too.",
        f"“*” would have the highest score of all, {signed(s[5])}, if the cut did not leave it out.",
    ]
    for index, note in enumerate(notes):
        drawing.text(24, 632 + 23 * index, note, "quiet small")
    return drawing.svg()


def step_box(drawing, x, y, width, title, detail, style="box"):
    drawing.rect(x, y, width, 58, style, radius=8)
    drawing.text(x + width / 2, y + 25, title, "title", "middle")
    drawing.text(x + width / 2, y + 46, detail, "quiet small", "middle")


def request():
    drawing = Drawing(
        680, 718, "The life of a request",
        "A row of the input is rendered and tokenized, scheduled, run through both models, contrasted, committed, and "
        "written as a record.",
    )  # fmt: skip
    left, width, rows = 190, 440, [28 + 84 * index for index in range(8)]
    middle, right, half = left + width / 2, left + width, (width - 20) / 2
    steps = [  # row, where it is in the source, what is done
        (0, "dataset/", "one line of the input", '{"id": …, "instruction": …}', "box"),
        (1, "text/", "render and tokenize", "chat template → text → token ids", "box"),
        (2, "engine/scheduler/", "schedule", "choose the rows and tokens of the next step", "box"),
        (3, "engine/pair/", "one batch, one block table", "tokens of many sequences, both models’ cache", "box"),
        (5, "device/", "contrast_sample", "plausible set, contrast, draw → token, score", "contrast-box"),
        (6, "engine/scheduler/", "commit", "append the token; stop token or full length?", "box"),
        (7, "dataset/", "record", "one line of the dataset, written at once", "result-box"),
    ]
    for row, place, title, detail, style in steps:
        drawing.text(24, rows[row] + 35, place, "mono quiet")
        step_box(drawing, left, rows[row], width, title, detail, style)
    drawing.text(24, rows[4] + 35, "model/", "mono quiet")
    step_box(drawing, left, rows[4], half, "expert", "forward pass → logits", "expert-box")
    step_box(drawing, right - half, rows[4], half, "amateur", "forward pass → logits", "amateur-box")
    drawing.text(middle, rows[4] + 35, "∥", "quiet", "middle")
    for row in (0, 1, 2, 5, 6):
        drawing.arrow((middle, rows[row] + 58), (middle, rows[row + 1]))
    for row in (3, 4):
        for x in (left + half / 2, right - half / 2):
            drawing.arrow((x, rows[row] + 58), (x, rows[row + 1]))
    drawing.text(middle + 12, rows[6] + 76, "finished", "quiet small")
    back = right + 22
    drawing.arrow((right, rows[6] + 29), (back, rows[6] + 29), (back, rows[2] + 29), (right, rows[2] + 29))
    note = "Every step serves many requests; those that are not finished take another turn."
    drawing.text(24, rows[7] + 88, note, "quiet small")
    return drawing.svg()


DRAWINGS = {"method.svg": method, "request.svg": request}


def main():
    stale = []
    for name, draw in DRAWINGS.items():
        path, text = HERE / name, draw()
        if sys.argv[1:] == ["--check"]:
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                stale.append(name)
        else:
            path.write_text(text, encoding="utf-8")
    if stale:
        sys.exit(f"draw.py: {', '.join(stale)} is not what this script draws; run python3 docs/drawings/draw.py")


if __name__ == "__main__":
    main()
