"""Writes templates_more.jsonl: chat templates of many kinds with the text that transformers renders.

    python make_templates.py > templates_more.jsonl

Every case has the form of those in templates.jsonl; `expected` is null and `error` true where transformers refuses.
"""

import datetime
import json
import sys

import transformers.utils.chat_template_utils as templates

CLOCK = "2026-03-01T05:06:07"
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "extra": None}
ASK = [{"role": "user", "content": "Name a river in Peru."}]
TALK = [
    {"role": "system", "content": "Answer in one line.\n"},
    {"role": "user", "content": "Name a river in Peru."},
    {"role": "assistant", "content": "The Ucayali."},
    {"role": "user", "content": "How long is it?"},
]
TOOLS = [{"type": "function", "function": {"name": "rate", "parameters": {"type": "object", "properties": {"to": {"type": "string"}}}}}]


class Clock(datetime.datetime):
    """The clock of `strftime_now`."""

    @classmethod
    def now(cls, tz=None):
        return cls.fromisoformat(CLOCK)


templates.datetime = Clock

KINDS = {
    "newlines": [
        "a\r\nb\rc\n\r\nd\r\n", "{% if true %}\r\nx\r\n{% endif %}\r\ny", "{{ 'a\r\nb' | tojson }}", "{% raw %}\r\na\r\n{% endraw %}\r\nb",
        "{{ \"\\r\\n\" | tojson }}", "a\n\n", "a\r\n\r\n", "\u00a0\u2003{% if true %}x{% endif %}", "x\n \t\u3000{% if true %}\ny{% endif %}",
        "{# a\r\nb #}\r\nc", "{%- raw -%}  x {% if %} {{ y }} {%- endraw -%}  z", "  {%+ if true %}a{% endif +%}\nb", "{{ 'a\\\nb' }}",
        "a  {%- if true -%}  b  {%- endif -%}  c", "<\n  {# x #}\n>", "{{ 1 -}}  \n x", "x\n  {{- 1 }}", "   {{ 1 }}\n  {% set a = 1 %}\n  {{ a }}",
    ],
    "strings": [
        "{{ 'a,b,,c'.split(',') }}{{ 'a b c'.rsplit(' ', 1) }}{{ ' x '.split(' ') }}", "{{ 'x'.center(4) }}|{{ 'xy'.center(5, '*') }}|{{ 'x'.ljust(3, '.') }}{{ 'x'.rjust(3) }}",
        "{{ 'aXbX'.replace('X', '-', 1) }}{{ 'aaa'.replace('', '.') }}", "{{ 'Hello World'.swapcase() }}{{ 'straße ǆ'.upper() }}{{ 'ΑΣ ΒΣ'.lower() }}{{ \"they're bill's\".title() }}{{ 'ßa'.capitalize() }}",
        "{{ 'abc'.find('c', -1) }}{{ 'abc'.find('a', -2) }}{{ 'abc'.startswith(('x', 'a')) }}{{ 'abc'.endswith('c', 0, 2) }}{{ 'abab'.count('ab', 1) }}{{ ''.find('', 1) }}",
        "{{ 'a-b-c'.partition('-') }}{{ 'a-b-c'.rpartition('-') }}{{ 'abc'.partition('-') }}{{ 'abc'.rpartition('-') }}", "{{ 'a\\nb\\r\\nc\\x0bd'.splitlines() }}{{ 'a\\n'.splitlines(true) }}{{ 'a\\n'.splitlines(keepends=true) }}",
        "{{ 'x1'.isalnum() }}{{ 'x'.isalpha() }}{{ '²'.isdigit() }}{{ '²'.isdecimal() }}{{ '½'.isnumeric() }}{{ 'a b'.isidentifier() }}{{ 'Ab'.istitle() }}{{ ' \\t'.isspace() }}{{ ''.isascii() }}{{ 'A1'.isupper() }}{{ 'a\\x00'.isprintable() }}",
        "{{ '%s|%5d|%-5s|%05.1f|%x|%o|%e|%g|%c|%%' % ('a', 42, 'b', 3.14159, 255, 8, 12345.678, 0.0001, 'z') }}", "{{ '%(a)s %(b)r' % {'a': 1, 'b': 'x'} }}{{ '%+d % d' % (5, 6) }}{{ '%.3s' % 'abcdef' }}{{ '%*d' % (5, 42) }}",
        "{{ '{} {1}'.format('a', 'b') }}", "{{ '{} {}'.format('a', 2) }}{{ '{0}{0}{x}'.format('a', x=1) }}{{ '{:>5}|{:<5}|{:^5}|{:*^7}'.format('a', 'b', 'c', 'd') }}",
        "{{ '{:05d}|{:+.2f}|{:,}|{:_}|{:x}|{:#x}|{:b}|{:e}|{:.3g}|{:%}'.format(42, 3.14159, 1234567, 1234567, 255, 255, 5, 12345.678, 0.00012345, 0.25) }}",
        "{{ '{a[0]}{b.c}{a!r}'.format(a=['x'], b={'c': 1}) }}", "{{ '{{}}'.format() }}{{ '{:{w}}|'.format('a', w=4) }}", "{{ 'abc'[1] }}{{ 'abc'[-1] }}{{ 'abc'[5] }}{{ 'abcdef'[1:4:2] }}{{ 'abc'[::-1] }}",
        "{{ 'a\\tb'.expandtabs(4) }}{{ '5'.zfill(3) }}{{ '+5'.zfill(4) }}{{ 'xxabxx'.strip('x') }}{{ 'xxab'.lstrip('x') }}{{ 'abxx'.rstrip('x') }}", "{{ 'abc'.removeprefix('a').removesuffix('c') }}{{ ','.join(['a', 'b']) }}{{ 'a' in 'abc' }}{{ 'ab' * 3 }}{{ 2 * 'x' }}",
        "{{ 'abc'.index('z') }}", "{{ ', '.join([1]) }}", "{{ 'a'.split('') }}", "{{ 'a' + 1 }}", "{{ '%d' % 'a' }}", "{{ '%s %s' % 'a' }}", "{{ '%s' % ('a', 'b') }}", "{{ 'Straße'.casefold() }}{{ 'abc'.translate({97: 'x', 98: none}) }}",
        "{{ '{:10.3f}|{:<10}|{:=+6d}|{:08.3f}|{:010,}'.format(3.14159, 'x', 5, -2.5, 1234) }}", "{{ 'x'.zfill(width=3) }}", "{{ '%r %a' % ('é', 'é') }}{{ '%i' % 3.9 }}{{ '%5s|%-5s|' % (none, true) }}",
    ],
    "filters": [
        "{{ 'foo bar baz qux' | truncate(9) }}|{{ 'foo bar baz qux' | truncate(9, true) }}|{{ 'foo bar baz qux' | truncate(11) }}|{{ 'foo bar' | truncate(3, leeway=0) }}", "{{ 'a\nb\n\nc' | indent }}|{{ 'a\nb' | indent(2, true) }}|{{ 'a\n\nb' | indent('> ', blank=true) }}",
        "{{ 'It is a well-known fact that rivers run' | wordwrap(10) }}", "{{ 'abcdefghij klm' | wordwrap(4) }}|{{ 'abcdefghij klm' | wordwrap(4, false) }}|{{ 'a--b c-d well-known' | wordwrap(6, wrapstring='/') }}",
        "{{ [1, 2, 3, 4, 5] | batch(2) | list }}{{ [1, 2, 3] | batch(2, 'x') | list }}{{ [1, 2, 3, 4, 5] | slice(3) | list }}{{ [1, 2, 3] | slice(2, 'x') | list }}",
        "{{ ['b', 'A', 'c'] | sort }}{{ ['b', 'A'] | sort(case_sensitive=true) }}{{ [3, 1, 2] | sort(reverse=true) }}{{ [{'a': 2}, {'a': 1}] | sort(attribute='a') }}", "{{ {'b': 1, 'a': 2} | dictsort }}{{ {'b': 1, 'a': 2} | dictsort(by='value') }}{{ {'b': 1, 'A': 2} | dictsort(true) }}{{ {'b': 1, 'a': 2} | dictsort(reverse=true) }}",
        "{{ [{'a': 1, 'b': 2}, {'a': 1, 'b': 3}, {'a': 2, 'b': 4}] | groupby('a') }}{% for g in messages | groupby('role') %}{{ g.grouper }}{{ g.list | length }}{% endfor %}", "{{ ['a', 'B', 'A'] | unique | list }}{{ [1, 1.0, true, 2] | unique | list }}",
        "{{ [1, 2, 3] | sum }}{{ [1.5, 2] | sum }}{{ [{'a': 1}] | sum('a', 10) }}{{ [[1], [2]] | sum(start=[]) }}", "{{ 2.5 | round }}{{ 3.5 | round }}{{ 2.675 | round(2) }}{{ 1234 | round(-2) }}{{ 2.1 | round(method='ceil') }}{{ 2.55 | round(1, 'floor') }}{{ 5 | round }}",
        "{{ '%s-%d' | format('a', 3) }}{{ '%(x)s' | format(x=1) }}", "{{ 1000 | filesizeformat }}{{ 1 | filesizeformat }}{{ 123456789 | filesizeformat }}{{ 1024 | filesizeformat(true) }}{{ 13 | filesizeformat }}", "{{ 'abc' | center(9) }}|{{ 'hello world-foo (bar)' | title }}|{{ 'hELLO' | capitalize }}",
        "{{ {'class': 'a b', 'id': none, 'x': '<\"'} | xmlattr }}|{{ {'a': 1} | xmlattr(false) }}", "{{ {'a b': 1} | xmlattr }}", "{{ '<a href=\"x\">&amp; y</a>' | striptags }}{{ '&lt;&eacute;&#39;&#x41;&notit;&copy' | striptags }}", "{{ '<&\"\\'>' | e }}{{ '<' | escape | escape }}{{ '<' | e | forceescape }}{{ '<' | safe }}",
        "{{ messages | map(attribute='role') | join(', ') }}{{ ['a', 'b'] | map('upper') | list }}{{ messages | map(attribute='x', default='-') | list }}{{ ['a1'] | map('replace', 'a', 'b') | list }}", "{{ [1, 2, 3, 4] | select('even') | list }}{{ [1, 2, 3] | reject('odd') | list }}{{ [0, 1, '', 'a'] | select | list }}{{ messages | selectattr('role', 'in', ['user']) | list | length }}{{ messages | rejectattr('role', 'eq', 'user') | map(attribute='role') | list }}",
        "{{ [1, 2] | first }}{{ [1, 2] | last }}{{ [] | first }}{{ 'abc' | last }}{{ {'a': 1} | first }}{{ 'abc' | reverse }}{{ [1, 2] | reverse | list }}", "{{ [3, 1, 2] | max }}{{ ['b', 'A'] | min }}{{ [] | max }}{{ [{'a': 1}, {'a': 3}] | max(attribute='a') }}",
        "{{ x | default('d') }}{{ '' | default('d') }}{{ '' | default('d', true) }}{{ none | d('x', boolean=true) }}", "{{ -5 | abs }}{{ 2.5 | abs }}{{ '12' | int + 1 }}{{ 'x' | int }}{{ '1.5' | float }}{{ 'x' | float(2.5) }}{{ true | int }}{{ '0b11' | int(base=2) }}{{ '077' | int(base=8) }}{{ '1e400' | int(7) }}",
        "{{ [1, [2, none]] | string }}{{ 5 | string ~ 'x' }}{{ [1, 2] | join }}{{ [1, none, 'x'] | join('|') }}", "{{ {'a': 1, 'b': 2} | items | list }}{{ {'a': 1} | list }}{{ 'abc' | list }}{{ {'a': 1} | length }}{{ 'é' | count }}", "{{ 'a b&c/d' | urlencode }}{{ {'a': 'b c'} | urlencode }}{{ 5 | urlencode }}",
        "{{ 'xxhixx' | trim('x') }}{{ '  a ' | trim }}|{{ 'Aa' | upper }}{{ 'Aa' | lower }}{{ 'a-b' | replace('-', '+') }}{{ 'aaa' | replace('a', 'b', 2) }}", "{{ {'key': ['a' * 30, 'b' * 30, 'c' * 30], 'b': {'x': 1}} | pprint }}", "{{ ('word ' * 40) | pprint }}{{ [1, 'a', (2,)] | pprint }}",
        "{{ messages[0] | attr('role') }}|{{ 'a' | attr('nothing') }}", "{{ 'a' | nope }}", "{% if false %}{{ 'a' | nope }}{% endif %}x", "{{ 5 | length }}", "{{ 'a' | truncate(1) }}", "{{ [1, 2] | join(d='-') }}{{ 'a b' | wordcount }}", "{{ 5 | upper }}{{ none | upper }}{{ [1] | trim }}", "{{ [2, 'a'] | max }}",
        "{{ 12.0 | int }}{{ '٣' | int }}{{ ' 7 ' | float }}{{ none | float(1) }}{{ [] | int(3) }}", "{{ messages | map('upper') | list }}", "{{ [1,2,3] | map('string') | join('') }}{{ (1, 2) | list }}{{ range(3) | list }}{{ range(5, 0, -2) | list }}{{ range(3) }}",
    ],
    "macros": [
        "{% macro f(a, b=2, c=a ~ b) %}{{ a }}{{ b }}{{ c }};{% endmacro %}{{ f(1) }}{{ f(1, 3) }}{{ f(1, c='x') }}{{ f(b=5, a=4) }}", "{% macro f() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f(1, 2, x=3) }}", "{% macro f() %}[{{ caller() }}]{% endmacro %}{% call f() %}body{% endcall %}", "{% macro f() %}{{ caller(1, b=2) }}{% endmacro %}{% call(a, b=3) f() %}{{ a }}{{ b }}{% endcall %}",
        "{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}", "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}B{% endmacro %}{{ a() }}", "{% set x = 1 %}{% macro f() %}{{ x }}{% endmacro %}{% set x = 2 %}{{ f() }}", "{% macro f(a) %}{{ a is defined }}{% endmacro %}{{ f() }}{{ f(1) }}",
        "{% macro f(a) %}{% endmacro %}{{ f(b=1) }}", "{% macro f(a) %}{% endmacro %}{{ f(1, a=2) }}", "{% macro f() %}x{% endmacro %}{% call f() %}y{% endcall %}", "{% macro f(a, b) %}{% endmacro %}{{ f.name }}{{ f.arguments }}{{ f.catch_varargs }}", "{% for i in [1, 2] %}{% macro f() %}{{ i }}{{ loop.index }}{% endmacro %}{{ f() }}{% endfor %}",
        "{% macro f(a=b, b=1) %}{{ a }}|{{ b }}{% endmacro %}{{ f() }}", "{% macro f(x) %}{{ x }}{% endmacro %}{{ ['a', 'b'] | map('upper') | list }}{{ f(*[1]) }}{{ f(**{'x': 2}) }}", "{% macro f() %}{% set y = 5 %}{{ y }}{% endmacro %}{{ f() }}{{ y }}", "{% macro f() %}{{ caller is defined }}{{ caller }}{% endmacro %}{{ f() }}", "{% macro f() %}<{% endmacro %}{{ f() | length }}{{ f() ~ 'x' }}{{ f().strip() }}",
    ],
    "loops": [
        "{% for x in [1, 2, 3] %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }};{% endfor %}", "{% for x in 'ab' %}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.length }}{% endfor %}", "{% for x in [1, 1, 2] %}{{ loop.changed(x) }}{{ loop.cycle('a', 'b') }}{% endfor %}",
        "{% for x in [] %}a{% else %}none{% endfor %}{% for x in nothing %}a{% else %}b{% endfor %}", "{% for x in [1, 2, 3, 4] if x % 2 == 0 %}{{ x }}{{ loop.last }}{{ loop.length }}{% endfor %}", "{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}{{ v }}{{ loop.last }}{% endfor %}", "{% for n in [{'v': 1, 'c': [{'v': 2, 'c': []}]}] recursive %}{{ n.v }}{{ loop.depth }}{{ loop(n.c) }}{% endfor %}",
        "{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}", "{% for a, b in ['xy'] %}{{ a }}{{ b }}{% endfor %}", "{% for a, b in [(1, 2, 3)] %}{% endfor %}", "{% set x = 0 %}{% for i in [1, 2] %}{% set x = x + i %}{{ x }}{% endfor %}{{ x }}", "{% for x in 5 %}{% endfor %}", "{% for x in none %}{% endfor %}", "{% for x in 1, 2 %}{{ x }}{% endfor %}",
        "{% for m in messages %}{% for c in m.role[:2] %}{{ c }}{{ loop.last }}{% endfor %}{{ loop.last }}{% endfor %}", "{% set g = messages | map(attribute='role') %}{{ g | list }}{{ g | list }}", "{% for x in range(3) %}{{ x }}{% endfor %}{{ loop is defined }}", "{% for x in [1, 2] %}{% if not loop.first %},{% endif %}{{ x }}{% endfor %}{{ x is defined }}", "{% for x in {'a': 1} %}{{ x }}{% endfor %}",
    ],
    "loop-control": [
        "{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}{{ m.role }}{% if loop.index == 3 %}{% break %}{% endif %};{% endfor %}!", "{% for m in messages %}{% set t %}a{% if m.role == 'system' %}{% continue %}{% endif %}{{ m.role }}{% endset %}[{{ t }}]{% endfor %}!", "{% for m in messages %}{% with x = m.role %}{% if x == 'assistant' %}{% break %}{% endif %}{{ x }}{% endwith %};{% endfor %}!",
        "{% for m in messages %}{% filter upper %}a{% if m.role == 'assistant' %}{% break %}{% endif %}{{ m.role }}{% endfilter %};{% endfor %}!", "{% set ns = namespace(t='') %}{% for m in messages %}{% set ns.t %}{% if m.role == 'user' %}{% continue %}{% endif %}{{ m.role }}{% endset %}{% endfor %}{{ ns.t }}", "{% for m in messages %}{% with %}{% for c in 'abc' %}{% if c == 'b' %}{% continue %}{% endif %}{{ c }}{% endfor %}{% if loop.index == 2 %}{% break %}{% endif %}{% endwith %}|{% endfor %}",
        "{% for m in messages %}{% with %}{% with %}{% if loop.index0 == 1 %}{% continue %}{% endif %}a{% endwith %}b{% endwith %}c{% endfor %}", "{% macro f() %}{% break %}{% endmacro %}", "{% for x in [1] %}{% macro f() %}{% break %}{% endmacro %}{% endfor %}", "{% for x in [1] %}{% call f() %}{% break %}{% endcall %}{% endfor %}", "{% break %}", "{% for x in [1, 2] %}{% for y in [] %}{% else %}{% break %}{% endfor %}{{ x }}{% endfor %}!",
        "{% for x in [1, 2, 3] %}{% set a %}{% set b %}{% if x == 2 %}{% continue %}{% endif %}{{ x }}{% endset %}<{{ b }}>{% endset %}{{ a }}{% endfor %}", "{% for x in [1, 2, 3] %}{% if x == 2 %}{% with %}{% continue %}{% endwith %}z{% else %}{{ x }}{% endif %}y{% endfor %}", "{% for x in [1] %}{% generation %}{% break %}{% endgeneration %}{% endfor %}", "{% for x in [1, 2] %}{% generation %}{% for y in 'ab' %}{{ y }}{% break %}{% endfor %}{% endgeneration %}{% endfor %}",
    ],
    "generation": [
        "{% generation %}a{{ 1 }}{% endgeneration %}b", "{%- generation -%} a {%- endgeneration -%} b", "{% raw %}{% generation %}{% endraw %}", "{{ '{% generation %}' }}", "{# {% generation %} #}x", "{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}", "{% generation %}\na\n{% endgeneration %}\nb", "{% for m in messages %}{% generation %}{{ m.role }}{{ loop.index }}{% endgeneration %}{% endfor %}", "{% generation %}a", "{% endgeneration %}", "{%generation%}x{%endgeneration%}", "{% macro f() %}{% generation %}{{ 1 }}{% endgeneration %}{% endmacro %}{{ f() }}",
    ],
    "clock": [f"{{{{ strftime_now('{d}') }}}}" for d in (
        "%a %A %b %B %h", "%d %e %-d %_d %j %-j", "%H %I %k %l %M %S %p %P", "%y %Y %C %G %g", "%u %w %U %V %W", "%c|%x|%X|%D|%F|%T|%R|%r", "%f %z%Z|%%", "%n%t|", "%^a %#Z %^B %#a", "%Ey %Od %EY", "%5d %05d %_5d", "%Q %", "%-m/%-d/%y %-I:%M", "é %Y年", "%s"[:0] + "%10A|%-H|%_H")] + ["{{ strftime_now() }}", "{{ strftime_now(5) }}"],
    "attributes": [
        "{{ messages[0].items is defined }}{{ messages[0].nope is defined }}{{ messages[0]['role'] }}{{ messages[0].get('x', 'd') }}", "{{ {'items': 1}.items is callable }}{{ {'items': 1}['items'] }}{{ {'get': 5}.get('get') }}", "{{ nothing.x }}", "{{ messages.nope is defined }}{{ messages[99] is defined }}{{ none.x is defined }}{{ (5).x is defined }}", "{{ {'a': 1}.keys() }}{{ {'a': 1}.values() | list }}{{ {'a': 1}.items() }}",
        "{{ (1, 2).count(1) }}{{ [1, 2].index(2) }}{{ {'a': {'b': 1}}.a.b }}{{ [[1, 2]][0][1] }}{{ [1, 2].0 }}", "{{ messages.append({}) }}", "{{ {}.update({'a': 1}) }}", "{{ messages.append is defined }}{{ ''.__class__ }}|{{ messages.__len__ is defined }}", "{{ ''.__class__.__mro__ }}", "{{ nothing['x'] }}", "{% set ns = namespace(a=1) %}{% set ns.b = 2 %}{{ ns.a + ns.b }}{{ ns.c is defined }}", "{% set ns = namespace({'a': 1}, b=2) %}{{ ns.a }}{{ ns['b'] }}", "{% set ns = namespace() %}{% set ns._x = 1 %}", "{% set d = {} %}{% set d.x = 1 %}", "{{ (5).bit_length() }}{{ 2.0.is_integer() }}{{ (7).real }}", "{{ {'_x': 1}._x }}{{ {'a b': 2}['a b'] }}{{ {1: 'x'}[1] }}{{ {1: 'x'}[1.0] }}{{ {1: 'x'}[true] }}", "{{ {}.x.y }}",
    ],
    "numbers": [
        "{{ 1 + 2 * 3 - 4 }} {{ 7 // -2 }} {{ 7 % -3 }} {{ -7 % 3 }} {{ 2 ** 10 }} {{ 2 ** -2 }} {{ 10 / 4 }}", "{{ 1.0 }} {{ 1e16 }} {{ 1e15 }} {{ 0.0001 }} {{ 0.00001 }} {{ 1.5e300 }} {{ 1e-7 }} {{ -0.0 }} {{ 100000000000000000000.0 }}", "{{ 0.1 + 0.2 }} {{ 1 / 3 }} {{ 3.0 * 2 }} {{ 5 // 2.0 }} {{ 5.5 % 2 }}", "{{ 99999999999999999999 * 99999999999999999999 }} {{ -99999999999999999999 // 7 }} {{ 2 ** 200 % 1000007 }}",
        "{{ 1_000 }} {{ 0x1f }} {{ 0b101 }} {{ 0o17 }} {{ 1e3 }} {{ 1_0.5 }}", "{{ true + 1 }} {{ true == 1 }} {{ 1 == 1.0 }} {{ -true }} {{ +5 }} {{ - -5 }} {{ 2 - +3 }}", "{{ 1 / 0 }}", "{{ 1 % 0 }}", "{{ 1 // 0 }}", "{{ 'a' * 1.5 }}", "{{ -'a' }}", "{{ 2 ** 3 ** 2 }} {{ -2 ** 2 }} {{ (-8) ** 3 }}", "{{ -5 | abs }} {{ 1 - 1 | abs }} {{ 2 * 3 | string }}", "{{ [1.0, 2, 1e100, none, true] }}", "{{ 12345678901234567890 }} {{ [123456789012345678901234567890] }} {{ 1e999 }}", "{{ 0.1 == 0.1 }} {{ 10 ** 20 == 1e20 }} {{ 9007199254740993 == 9007199254740992.0 }}", "{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 5 > 3 == true }}", "{{ 7 | string + '1' }}",
    ],
    "json": [
        "{{ {'a': [1, 2.0, none, true, 'é<&>\"\\\\\n\t\\x01\\x7f']} | tojson }}", "{{ messages | tojson(indent=2) }}", "{{ {'b': 1, 'a': [2]} | tojson(sort_keys=true, separators=(',', ':')) }}", "{{ 'é😀' | tojson(ensure_ascii=true) }}", "{{ [] | tojson(indent=2) }}{{ {} | tojson(indent=2) }}{{ [[]] | tojson(indent=1) }}", "{{ (1, (2,)) | tojson }}{{ 1e16 | tojson }}{{ 1e22 | tojson }}{{ 1.0 | tojson }}{{ -0.0 | tojson }}", "{{ nothing | tojson }}", "{{ {(1, 2): 3} | tojson }}", "{{ {1: 2, none: 3, true: 4, 2.5: 1} | tojson }}", "{{ range(3) | tojson }}", "{{ {1: 1, 'a': 2} | tojson(sort_keys=true) }}", "{{ [1, {'a': 2}] | tojson(indent='--') }}", "{{ [1] | tojson(false, none, [';', '=']) }}", "{{ messages[0].items() | tojson }}", "{{ '<' | safe | tojson }}{{ (1e308 * 10 - 1e308 * 10) | tojson }}", "{{ [1, 2] | tojson(indent=0) }}", "{{ namespace(a=1) | tojson }}", "{{ [1] | tojson(bad=1) }}",
    ],
    "repr": [
        "{{ ['a', \"b'c\", 'd\"e', 'f\\'\"g', 'h\\\\i', 'j\nk', '\\u200b\\xad\\u2028é日😀\\U000e0001'] }}", "{{ {'a': none, 1: true, 2.5: [], (1,): {}} }}", "{{ (1,) }}{{ () }}{{ (1, 'a') }}{{ [(), [[]], {}] }}", "{{ none }}{{ true }}{{ [false, none] }}", "{{ ['a' | safe] }}{{ [nothing] }}", "{{ namespace(a=1, b='x') }}", "{{ {'a': 1}.items() }}{{ {'a': 1}.keys() }}{{ range(1, 5, 2) }}", "{{ messages }}", "{{ [1e16, 1.0, -0.0, 1e-5] }}", "{{ '' }}|{{ [''] }}|{{ nothing }}", "{{ ['\\x00\\x1f\\x7f\\x80'] }}", "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}",
    ],
    "literals": [
        "{{ 'a\\qb' }}{{ '\\101\\x42\\u0043' }}{{ '\\a\\b\\f\\v' | tojson }}", "{{ 'a' 'b' \"c\" }}", "{{ [1, 2,] }}{{ {'a': 1,} }}{{ (1, 2,) }}", "{{ 1, 2 }}", "{{ True }}{{ False }}{{ None }}{{ true }}{{ none }}", "{{ 'é' ~ \"ü\" }}{{ '\\'' }}{{ \"\\\"\" }}", "{{ '\\x4' }}", "{{ 007 }}", "{{ 1. }}", "{{ {'a': {'b': [1, {'c': 2}]}}.a.b[1].c }}", "{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set c = 1, %}{{ c }}", "{{ 'x' if false }}|{{ 'x' if false else 'y' }}{{ 1 if 0 else 2 if 0 else 3 }}", "{% set x = 'a{{ b }}c' %}{{ x }}{{ '%}' }}{{ '}}' }}", "{{ not true or true }}{{ not (1 == 1) }}{{ 1 and 0 or 5 }}{{ '' or 'x' }}",
        "{% if x is defined: %}a{% else: %}b{% endif: %}", "{{ [1, 2, 3][-1] }}{{ [1, 2, 3][0:2] }}{{ (1, 2, 3)[::2] }}", "{{ 'a'.upper }}"[:0] + "{{ 'unclosed }}", "{{ 1 +}}", "{% if %}{% endif %}", "{{ ) }}", "{{ a b }}", "{% unknown %}",
    ],
    "compare": [
        "{{ 'a' < 'b' }}{{ 'a' < 'B' }}{{ [1, 2] < [1, 3] }}{{ (1,) < (1, 2) }}", "{{ 1 < 'a' }}", "{{ none < 1 }}", "{{ [1] < (1,) }}", "{{ 1 == '1' }}{{ none == false }}{{ [] == () }}{{ {'a': 1} == {'a': 1.0} }}{{ 'a' == 'a' | safe }}", "{{ nothing == none }}{{ nothing == nothing }}{{ nothing != 1 }}", "{{ nothing < 1 }}", "{{ 1 in [1.0] }}{{ 'a' in {'a': 1} }}{{ none in [none] }}{{ 1 not in [2] }}{{ true in [1] }}", "{{ 1 in 'a1' }}", "{{ 1 in 5 }}", "{{ [1] in {} }}", "{{ [1, 'a'] | sort }}", "{{ [none, 1] | min }}", "{{ [[2], [1]] | sort }}{{ [true, 0, 2] | sort }}", "{{ 2 > 1 > 0 }}{{ 'b' in 'abc' == true }}", "{{ nothing + 1 }}", "{{ nothing ~ 'x' }}", "{{ {} < {} }}", "{{ 'a' is eq 'a' }}{{ 1 is lt 2 }}{{ 3 is ge 4 }}{{ 1 is ne 1 }}{{ 2 is sameas 2 }}{{ none is sameas none }}",
    ],
    "autoescape": [
        "{{ '<' | safe + '<' }}{{ '<' + '<' | safe }}{{ '<' | e + 'a' }}", "{{ '<' | safe ~ '<' }}", "{% autoescape true %}{{ '<' }}{{ '<' | safe }}{{ ['<'] }}{{ messages[0].role ~ '<' ~ '>' | safe }}{{ ['<', '>' | safe] | join }}{% endautoescape %}", "{% autoescape true %}{% set x %}<b>{{ '<' }}{% endset %}{{ x }}{% endautoescape %}", "{% autoescape true %}{% macro f() %}<i>{{ '<' }}{% endmacro %}{{ f() }}{% endautoescape %}", "{% autoescape false %}{{ '<' }}{% endautoescape %}", "{% autoescape true %}{{ '<' ~ '>' | safe }}{{ '<' ~ ['>' | safe][0] }}{{ ('<' ~ '&') | safe }}{% endautoescape %}", "{{ ('<' | safe).replace('<', '>') }}{{ ('%s' | safe) % '<' }}{{ ('{}' | safe).format('<') }}{{ ('a' | safe).join(['<', '>']) }}", "{{ ['<' | safe, '<'] | join }}{{ ['<' | safe, '<'] | join('&') }}", "{% autoescape true %}{{ 5 }}{{ none }}{{ nothing }}{{ '<' | tojson }}{{ '<' | replace('<', '>') }}{% endautoescape %}",
        "{{ ('<' | safe) * 2 + '<' }}{{ ('<a>' | safe)[0] + '<' }}{{ ('a,<' | safe).split(',')[0] + '<' }}{{ ('a' | safe).upper() + '<' }}", "{{ '<' | e is escaped }}{{ '<' is escaped }}{{ 'a' | safe == 'a' }}", "{{ messages[0] | tojson + '<' | safe }}", "{% autoescape true %}{{ '<' | upper }}{{ '<' | e }}{{ {'a': '<'} | xmlattr }}{% filter upper %}<{{ '<' }}{% endfilter %}{% endautoescape %}", "{{ '<' | safe | indent ~ '<' }}{{ '<x' | safe | truncate(1, true, '', 0) + '<' }}{{ '<' | safe | upper + '<' }}{{ '<' | safe | trim + '<' }}", "{{ ('<' | safe | string) + '<' }}{{ ('<' | safe | replace('<', '>')) + '<' }}",
    ],
    "builtins": [
        "{{ dict(a=1, b=[2]) }}{{ dict({'x': 1}, y=2) }}{{ dict([('a', 1)]) }}", "{{ range(5) | list }}{{ range(2, 8, 3) | list }}{{ range(3)[1] }}{{ range(10) | length }}{{ 3 in range(5) }}", "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.reset() }}{{ c.current }}", "{% set j = joiner() %}{{ j() }}a{{ j() }}b{{ j() }}c", "{{ raise_exception('no') }}", "{{ raise_exception() }}", "{{ range(0, 1000000) | length }}", "{{ range() }}", "{{ dict(1) }}", "{{ dict.fromkeys(['a', 'b'], 0) }}", "{{ nothing() }}", "{{ messages() }}", "{{ 'a'() }}", "{{ [1, 2, 3, 1].count(1) }}{{ [1, 2, 3].index(3, 1) }}", "{{ cycler() }}", "{{ range(3) == range(0, 3) }}{{ range(0) | length }}", "{{ debug() }}", "{{ namespace is callable }}{{ dict is callable }}{{ joiner() is callable }}",
    ],
    "tests": [
        "{{ 1 is number }}{{ true is number }}{{ 1 is integer }}{{ true is integer }}{{ 1.0 is float }}{{ 'a' is string }}{{ [] is sequence }}{{ {} is sequence }}{{ 'a' is sequence }}{{ {} is mapping }}{{ [] is mapping }}", "{{ 1 is odd }}{{ 2 is even }}{{ 9 is divisibleby 3 }}{{ 9 is divisibleby(2) }}", "{{ none is none }}{{ x is undefined }}{{ x is defined }}{{ none is defined }}", "{{ true is true }}{{ 1 is true }}{{ false is false }}{{ true is boolean }}{{ 0 is boolean }}", "{{ 'abc' is lower }}{{ 'ABC' is upper }}{{ 'a' is in 'abc' }}{{ 1 is in [1] }}", "{{ [] is iterable }}{{ 5 is iterable }}{{ x is iterable }}{{ range(2) is iterable }}{{ none is iterable }}", "{{ messages[0].get is callable }}{{ 5 is callable }}{{ range is callable }}{{ x is callable }}", "{{ 'upper' is filter }}{{ 'nope' is filter }}{{ 'odd' is test }}", "{{ 5 is nope }}", "{{ 1 is not odd }}{{ 'a' is not string }}{{ x is not defined and true }}", "{{ 'a' is odd }}", "{{ 1 == 1 is true }}{{ [1, 2] is sameas [1, 2] }}", "{{ 5 is gt 3 }}{{ 5 is lessthan(3) }}{{ 5 is equalto 5 }}", "{{ x is sequence }}{{ {}.items() is sequence }}{{ range(3) is sequence }}{{ messages | map('string') is iterable }}",
    ],
    "refusals": [
        "{{ messages.append(1) }}", "{{ messages[0].pop('role') }}", "{{ messages[0].setdefault('x', 1) }}", "{{ messages.sort() }}", "{{ ''.__class__() }}", "{{ messages.__class__.__name__ }}", "{{ namespace(__x=1) }}", "{{ range.__call__ }}|", "{{ 'a'.__add__('b') }}", "{{ messages.clear() }}", "{{ messages[0].update(a=1) }}", "{{ messages[0].copy() }}{{ [1].copy() }}",
    ],
    "mixed": [
        "{{ [1, 2] | map('nope') | list }}", "{{ '%05d|%-6.2f|%+x' % (-3, 2.5, 255) }}{{ '{:^+9.2e}|{:>{}}'.format(1234.5, 'a', 4) }}", "{{ '{0:>{1}}|{2:,.2f}|{3!s:>6}'.format('a', 4, 12345.678, none) }}", "{{ 'a\x1fb c'.split() }}{{ '\xa0a\u3000'.strip() }}|", "{{ (messages | last).role }}{{ messages[-1]['content'][:5] }}{{ messages[1:] | length }}{{ messages[:-1] | map(attribute='role') | list }}",
        "{{ '%s' % messages }}", "{{ 'x' * -1 }}|{{ [1] * 2 }}{{ (1, 2) * 2 }}{{ [1] + [2] }}{{ (1,) + (2,) }}", "{{ [1] + (2,) }}", "{{ " + " + ".join(["'a'"] * 120) + " }}", "{{ " + " ~ ".join(["1"] * 120) + " }}{{ " + " or ".join(["0"] * 120) + " }}", "{% if messages | selectattr('role', 'equalto', 'system') | list %}s{% else %}n{% endif %}{{ messages | selectattr('nope') | list }}",
        "{% macro outer(x) %}{% macro inner(y) %}{{ y }}{{ x }}{% endmacro %}{{ inner(1) }}{% endmacro %}{{ outer(2) }}", "{% macro f(items) %}{% for i in items %}{{ caller(i) }}{{ loop.index }}{% endfor %}{% endmacro %}{% call(i) f([1, 2]) %}<{{ i }}>{% endcall %}", "{% for m in messages %}{% call f() %}{{ m.role }}{{ loop.index }}{% endcall %}{% endfor %}{% macro f() %}{% endmacro %}", "{% macro f() %}[{{ caller() }}]{% endmacro %}{% for m in messages %}{% call f() %}{{ m.role }}{{ loop.index }}{% endcall %}{% endfor %}",
        "{% set ns = namespace(a=0) %}{% macro f() %}{% set ns.a = ns.a + 1 %}{% endmacro %}{{ f() }}{{ f() }}{{ ns.a }}", "{% for k, v in {'a': {'b': 1}}.items() recursive %}{{ k }}{% if v is mapping %}{{ loop(v.items()) }}{% endif %}{% endfor %}", "{% set x = messages | map(attribute='role') %}{{ x | first }}{{ x | first }}{{ x | list }}", "{{ messages | map(attribute='role') | list | tojson }}{{ {'a': 1} | string }}{{ messages[0].content | string | length }}", "{{ messages | map(attribute='role') | tojson }}", "{{ [3, 1] | sort | first }}{{ 'b,a' .split(',') | sort | join }}",
        "{%- for m in messages -%}{%- if loop.previtem is defined and loop.previtem.role == m.role -%}x{%- endif -%}{{ loop.nextitem.role if loop.nextitem else '-' }}{%- endfor -%}", "{% if true %}{% set q %}in{% endset %}{% endif %}{{ q }}", "{% block a %}x{{ messages[0].role }}{% endblock %}", "{% include 'x' %}", "{% for i in range(2) %}{% for j in range(2) %}{{ loop.index }}{% if j == 0 %}{% continue %}{% endif %}{{ i }}{% endfor %}{{ loop.index }}{% endfor %}", "{{ messages[0]['role'] is eq('user') }}{{ 1 is eq(1.0) }}{{ messages[0].content is defined and messages[0].content is not none and messages[0].content | length > 0 }}", "{{ 'a' if messages[0].role == 'user' and not tools else 'b' }}{{ (tools or []) | length }}{{ tools is defined }}", "{{ {'a': 1, **{}} }}", "{{ messages | batch(2) | map('length') | list }}{{ messages | groupby('role') | map('first') | list }}", "{{ '٣' | int }}{{ '1,5' | float }}{{ '  ' | float(9) }}{{ '1e2' | float }}{{ 'inf' | float }}{{ 'nan' | float }}", "{{ '{:,}'.format(-1234567.891) }}{{ '{:e}'.format(0) }}{{ '{:g}'.format(1e20) }}{{ '{:g}'.format(100000.0) }}{{ '{:.0f}'.format(2.5) }}{{ '{}'.format(1e16) }}", "{{ '%g %g %G' % (1e-5, 123456789.0, 1e-10) }}{{ '%#x %#o %.3e' % (255, 8, 12345) }}{{ '%5.1f%%' % 99.95 }}", "{{ 'ab'.center(5) }}|{{ 'a'.center(4, '-') }}|{{ '' | center(3) }}|", "{{ 1 if x.y is defined else 2 }}", "{{ loop.index }}", "{{ caller() }}", "{{ messages[0].content.split(' ')[0].lower() ~ '!' }}{{ messages[0].content.split() | length }}",
    ],
    "whitespace": [
        "  {% if true %}  \n  a\n  {% endif %}  \nb", "{%- for m in messages %}\n  {{- m.role -}}  \n{%- endfor %}\n", "a\n\n  {%- if true %}\n b {%- endif %}\n c", "{% set x = 1 -%}   \n y", "{#- c -#}  x", "x {#+ c +#}\ny", "  {{ 1 }}  {% if true %} {% endif %}  ", "\t{% if true %}\t\n{% endif %}\n", "{% raw -%}  a {{ b }}  {%- endraw %}  c", "{% raw %}\na{% endraw %}\nb", "a {%+ raw %} x {% endraw +%}\nb", "   {% raw %}x{% endraw %}", "{% filter upper %}\n a\n{% endfilter %}\nb", "{% with a = 1, b = 2 %}\n{{ a }}{{ b }}{% endwith %}\nc", "{% with a = 1 %}{% with a = 2, b = a %}{{ a }}{{ b }}{% endwith %}{% endwith %}",
    ],
    "scopes": [
        "{% set x = 1 %}{% if true %}{% set x = 2 %}{% endif %}{{ x }}", "{% set x = 1 %}{% with %}{% set x = 2 %}{{ x }}{% endwith %}{{ x }}", "{% set x %}{% set y = 1 %}{{ y }}{% endset %}{{ x }}{{ y is defined }}", "{% filter upper %}{% set z = 'a' %}{{ z }}{% endfilter %}{{ z is defined }}", "{% for i in [1] %}{% set q = i %}{% endfor %}{{ q is defined }}", "{% set t | upper | trim %} a {% endset %}{{ t }}", "{% filter replace('a', 'b') | upper %}abc{% endfilter %}", "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + loop.index %}{% endfor %}{{ ns.n }}", "{% for i in [1, 2] %}{% if i == 1 %}{% set w = 'x' %}{% endif %}{{ w is defined }}{% endfor %}", "{% filter length %}abc{% endfilter %}", "{{ bos_token }}{{ eos_token }}{{ messages | length }}{{ tools is none }}{{ documents is none }}{{ add_generation_prompt }}",
    ],
    "objects": [
        "{% for i in [1, 2] %}{{ loop }}{% endfor %}", "{% for i in [1, 2] recursive %}{{ loop }}{% endfor %}", "{{ {'items': 1}.items }}", "{{ 'abc' | attr('upper') }}", "{{ messages[0].content.strip }}", "{{ [messages[0].keys] }}", "{{ cycler(1, 2) }}", "{{ joiner() ~ '' }}", "{{ ([1] | map('string')) ~ '' }}", "{% set x = 'a'.upper %}{{ x() }}", "{{ range(3) }}{{ {'a': 1}.keys() }}",
    ],
}


def render(template, messages, tools, kwargs, special):
    tokens = {name: token for name, token in special.items() if name != "extra" and token is not None}
    texts, _ = templates.render_jinja_template(
        conversations=[templates._normalize_chat_messages(messages)], tools=tools, documents=None,
        chat_template=template, add_generation_prompt=True, **{**tokens, **kwargs})
    return texts[0]


def main():
    for kind, sources in KINDS.items():
        for number, source in enumerate(sources, 1):
            messages = TALK if "messages" in source and "messages[0]" not in source else ASK
            case = {"id": f"{kind}-{number:02}", "kind": kind, "template": source, "messages": messages, "tools": None,
                    "kwargs": {}, "special_tokens": SPECIAL}
            if kind == "clock":
                case["clock"] = CLOCK
            # A file is read with universal line ends, as from_pretrained does.
            try:
                case["expected"] = render(source.replace("\r\n", "\n").replace("\r", "\n"), messages, None, {}, SPECIAL)
                case["expected"].encode()
                # No prompt can hold an address, which is another in each run.
                assert " at 0x" not in case["expected"], "an address"
            except Exception as error:
                print(f"{case['id']}: {type(error).__name__}: {error}", file=sys.stderr)
                case["expected"], case["error"] = None, True
            print(json.dumps(case, ensure_ascii=False))


if __name__ == "__main__":
    main()
