//! The questions of Python's `str` about its characters.

use minijinja::Error;
use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory};

use super::trim::is_space;
use crate::text::jinja::value::number::decimal_digit;
use crate::text::jinja::value::{refused, repr};

/// The characters beyond decimal digits that have a digit's value: superscripts, circled digits and their like.
const DIGITS: [(u32, u32); 20] = [
    (0xb2, 0xb3),
    (0xb9, 0xb9),
    (0x1369, 0x1371),
    (0x19da, 0x19da),
    (0x2070, 0x2070),
    (0x2074, 0x2079),
    (0x2080, 0x2089),
    (0x2460, 0x2468),
    (0x2474, 0x247c),
    (0x2488, 0x2490),
    (0x24ea, 0x24ea),
    (0x24f5, 0x24fd),
    (0x24ff, 0x24ff),
    (0x2776, 0x277e),
    (0x2780, 0x2788),
    (0x278a, 0x2792),
    (0x10a40, 0x10a43),
    (0x10e60, 0x10e68),
    (0x11052, 0x1105a),
    (0x1f100, 0x1f10a),
];

/// The letters that are numbers: those of Chinese.
const NUMBERS: &str = "㐅㒃㠪㭍一七万三九二五亖亿什仟仨伍佰億兆兩八六十千卄卅卌叁参參叄四壱壹幺廾廿弌弍弎弐拾捌柒漆玖百肆萬貮貳贰阡陆陌陸零";

/// `text.name()` for a name that begins with `is`.
pub(super) fn is(text: &str, name: &str) -> Result<bool, Error> {
    let all = |test: fn(char) -> bool| !text.is_empty() && text.chars().all(test);
    Ok(match name {
        "isalnum" => all(is_alphanumeric),
        "isalpha" => all(is_alphabetic),
        "isascii" => text.is_ascii(),
        "isdecimal" => all(|character| decimal_digit(character).is_some()),
        "isdigit" => all(is_digit),
        "isidentifier" => is_identifier(text),
        "islower" => is_of_case(text, is_lower, |character| is_upper(character) || is_title(character)),
        "isnumeric" => all(is_numeric),
        "isprintable" => text.chars().all(repr::is_printable),
        "isspace" => all(is_space),
        "istitle" => is_titled(text),
        "isupper" => is_of_case(text, is_upper, |character| is_lower(character) || is_title(character)),
        _ => return Err(refused(format!("str has no method {name}()"))),
    })
}

/// `str.isalpha` of a character.
pub(in crate::text::jinja) fn is_alphabetic(character: char) -> bool {
    character.is_ascii_alphabetic()
        || !character.is_ascii() && character.general_category_group() == GeneralCategoryGroup::Letter
}

/// `str.isalnum` of a character.
pub(in crate::text::jinja) fn is_alphanumeric(character: char) -> bool {
    is_alphabetic(character) || is_numeric(character)
}

/// `str.isdigit` of a character.
pub(in crate::text::jinja) fn is_digit(character: char) -> bool {
    let code = u32::from(character);
    decimal_digit(character).is_some() || DIGITS.iter().any(|(first, last)| (*first..=*last).contains(&code))
}

fn is_numeric(character: char) -> bool {
    if character.is_ascii() {
        return character.is_ascii_digit();
    }
    character.general_category_group() == GeneralCategoryGroup::Number || NUMBERS.contains(character)
}

pub(super) fn is_lower(character: char) -> bool {
    character.is_lowercase()
}

pub(super) fn is_upper(character: char) -> bool {
    character.is_uppercase()
}

fn is_title(character: char) -> bool {
    !character.is_ascii() && character.general_category() == GeneralCategory::TitlecaseLetter
}

pub(super) fn is_cased(character: char) -> bool {
    is_lower(character) || is_upper(character) || is_title(character)
}

fn is_of_case(text: &str, this: fn(char) -> bool, other: fn(char) -> bool) -> bool {
    text.chars().any(this) && !text.chars().any(other)
}

fn is_titled(text: &str) -> bool {
    let (mut inside, mut cased) = (false, false);
    for character in text.chars() {
        if is_upper(character) || is_title(character) {
            if inside {
                return false;
            }
            (inside, cased) = (true, true);
        } else if is_lower(character) {
            if !inside {
                return false;
            }
            cased = true;
        } else {
            inside = false;
        }
    }
    cased
}

fn is_identifier(text: &str) -> bool {
    use GeneralCategory::{ConnectorPunctuation, DecimalNumber, LetterNumber, NonspacingMark, SpacingMark};
    let starts = |character: char| {
        character == '_' || is_alphabetic(character) || character.general_category() == LetterNumber
    };
    let continues = |character: char| {
        let others = [ConnectorPunctuation, DecimalNumber, NonspacingMark, SpacingMark];
        starts(character) || others.contains(&character.general_category())
    };
    let mut characters = text.chars();
    characters.next().is_some_and(starts) && characters.all(continues)
}
