//! Puts a guard before or after every instruction that can make or read a large value.
//!
//! A guard is a call of a function whose name no template can write. It takes the operands from the engine's stack, asks
//! the [meter](super::meter) and puts them back, or performs the step itself.

use minijinja::machinery::{Instruction, Instructions};
use minijinja::value::{Rest, Tuple, Value, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, State};

use super::growth::check_growth;
use super::meter;
use super::namespace::{namespace, set_attribute};
use super::program::place;

const MADE: &str = "\0made";
const FILTER: &str = "\0filter";
const TEST: &str = "\0test";
const METHOD: &str = "\0method";
const MAPPING: &str = "\0mapping";
const SET_ATTRIBUTE: &str = "\0set";
const JOINED: &str = "\0joined";
const REPEATED: &str = "\0repeated";
const COMPARED: &str = "\0compared";
const UNPACKED: &str = "\0unpacked";

/// Filters that do not look into the elements of their argument.
const SHALLOW_FILTERS: [&str; 10] =
    ["length", "count", "first", "last", "default", "d", "list", "items", "reverse", "safe"];
/// Tests that look into their arguments.
const DEEP_TESTS: [&str; 17] = [
    "eq",
    "equalto",
    "==",
    "ne",
    "!=",
    "lt",
    "lessthan",
    "<",
    "le",
    "<=",
    "gt",
    "greaterthan",
    ">",
    "ge",
    ">=",
    "in",
    "sameas",
];

/// Adds the guards and the functions that they replace.
pub(super) fn install(environment: &mut Environment) {
    environment.add_function("namespace", namespace);
    // It prints all variables, and Jinja has it only as an extension.
    environment.remove_global("debug");
    environment.add_function(MADE, |value: Value| meter::charge_value(&value).map(|()| value));
    environment.add_function(FILTER, filter);
    environment.add_function(TEST, test);
    environment.add_function(METHOD, method);
    environment.add_function(MAPPING, |args: Operands| mapping(&args.into_values()));
    environment.add_function(SET_ATTRIBUTE, |args: Operands| set_attribute(&args.into_values()));
    environment.add_function(JOINED, |args: Operands| checked(args, joined));
    environment.add_function(REPEATED, |args: Operands| checked(args, repeated));
    environment.add_function(COMPARED, |args: Operands| checked(args, compared));
    environment.add_function(UNPACKED, |args: Operands| checked(args, unpacked));
}

/// The operands of a step, keyword arguments among them.
type Operands = Rest<ValueOrKwargs>;

/// The operands, if `check` accepts them, in the order in which the engine unpacks them onto its stack: the last first.
fn checked(operands: Operands, check: fn(&[Value]) -> Result<(), Error>) -> Result<Value, Error> {
    let mut operands = operands.into_values();
    check(&operands)?;
    operands.reverse();
    Ok(Value::from(Tuple::from(operands)))
}

/// The same program with guards.
pub(super) fn guarded<'source>(part: &Instructions<'source>) -> Instructions<'source> {
    let mut steps: Vec<Vec<Instruction<'source>>> = Vec::new();
    while let Some(instruction) = part.get(steps.len() as u32) {
        let follows_constant = matches!(
            steps.len().checked_sub(1).and_then(|before| part.get(before as u32)),
            Some(Instruction::LoadConst(_))
        );
        steps.push(guard(instruction, follows_constant));
    }
    // Where each instruction of the given program begins in the new one.
    let mut starts = vec![0];
    starts.extend(steps.iter().scan(0, |next, step| {
        *next += step.len() as u32;
        Some(*next)
    }));
    let mut program = Instructions::new(part.name(), part.source());
    for (index, step) in steps.into_iter().enumerate() {
        for mut instruction in step {
            if let Some(target) = target(&mut instruction) {
                *target = starts[*target as usize];
            }
            program.add_with_span(instruction, place(part, index as u32));
        }
    }
    program
}

/// The instruction that is named, by its number, in another.
fn target<'a>(instruction: &'a mut Instruction<'_>) -> Option<&'a mut u32> {
    match instruction {
        Instruction::Iterate(target)
        | Instruction::Jump(target)
        | Instruction::JumpIfFalse(target)
        | Instruction::JumpIfFalseOrPop(target)
        | Instruction::JumpIfTrueOrPop(target)
        | Instruction::BuildMacro(_, target, _) => Some(target),
        _ => None,
    }
}

/// What takes the place of an instruction.
fn guard<'source>(instruction: &Instruction<'source>, follows_constant: bool) -> Vec<Instruction<'source>> {
    use Instruction as I;
    let same = || instruction.clone();
    let after = |guard| vec![same(), I::CallFunction(guard, Some(1))];
    let before = |guard, operands: usize| {
        vec![I::CallFunction(guard, Some(operands as u16)), I::UnpackList(operands), same()]
    };
    let named = |guard, name: &str, arguments: Option<u16>| {
        let name = I::LoadConst(Value::from(name));
        match arguments {
            Some(count) => vec![name, I::CallFunction(guard, Some(count + 1))],
            // The number of arguments lies on the stack.
            None => vec![name, I::Swap, I::LoadConst(Value::from(1)), I::Add, I::CallFunction(guard, None)],
        }
    };
    match instruction {
        // So that it is counted where a variable captures it, too.
        I::EmitRaw(text) => vec![I::LoadConst(Value::from_safe_string((*text).to_owned())), I::Emit],
        I::SetAttr(name) => {
            vec![I::LoadConst(Value::from(*name)), I::CallFunction(SET_ATTRIBUTE, Some(3)), I::DiscardTop]
        }
        I::BuildMap(pairs) if *pairs < usize::from(u16::MAX / 2) => {
            vec![I::CallFunction(MAPPING, Some(*pairs as u16 * 2))]
        }
        I::Add | I::StringConcat => before(JOINED, 2),
        I::Mul => before(REPEATED, 2),
        I::Eq | I::Ne | I::Gt | I::Gte | I::Lt | I::Lte | I::In | I::CompareAndPreserve(_) => {
            before(COMPARED, 2)
        }
        I::GetItem if !follows_constant => before(COMPARED, 2),
        I::UnpackLists(count) | I::MergeKwargs(count) => before(UNPACKED, *count),
        I::ApplyFilter(name, arguments, _) => named(FILTER, name, *arguments),
        I::PerformTest(name, arguments, _) => named(TEST, name, *arguments),
        I::CallMethod(name, arguments) => named(METHOD, name, *arguments),
        I::BuildMap(_)
        | I::BuildList(_)
        | I::BuildTuple(_)
        | I::Slice
        | I::CallFunction(..)
        | I::CallObject(_)
        | I::EndCapture => after(MADE),
        _ => vec![same()],
    }
}

/// The name at the end of the arguments, without white space, and the others.
fn split_name(args: &[Value]) -> Result<(String, &[Value]), Error> {
    let (name, args) = args.split_last().ok_or_else(|| meter::refused("a call without a name"))?;
    Ok((name.as_str().unwrap_or_default().split_ascii_whitespace().collect(), args))
}

fn filter(state: &mut State, args: Operands) -> Result<Value, Error> {
    let args = args.into_values();
    let (name, args) = split_name(&args)?;
    if !SHALLOW_FILTERS.contains(&name.as_str()) {
        meter::weigh(args)?;
    }
    check_growth(&name, args)?;
    let value = state.apply_filter(&name, args)?;
    meter::charge_value(&value)?;
    Ok(value)
}

fn test(state: &mut State, args: Operands) -> Result<bool, Error> {
    let args = args.into_values();
    let (name, args) = split_name(&args)?;
    if DEEP_TESTS.contains(&name.as_str()) {
        meter::weigh(args)?;
    }
    state.perform_test(&name, args)
}

fn method(state: &mut State, args: Operands) -> Result<Value, Error> {
    let args = args.into_values();
    let (name, args) = split_name(&args)?;
    let Some((object, rest)) = args.split_first() else { return Err(meter::refused("a method of nothing")) };
    meter::weigh(rest)?;
    if let Some(text) = object.as_str() {
        meter::charge_reading(text.len())?;
        check_growth(&name, args)?;
    }
    let value = object.call_method(state, &name, rest)?;
    meter::charge_value(&value)?;
    Ok(value)
}

/// A mapping of keys and values in turn.
fn mapping(args: &[Value]) -> Result<Value, Error> {
    meter::charge_container(args.len())?;
    for key in args.iter().step_by(2) {
        meter::weigh(std::slice::from_ref(key))?;
    }
    Ok(Value::from_pairs(args.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone()))))
}

/// The operands of `+` and `~`.
fn joined(args: &[Value]) -> Result<(), Error> {
    if args.iter().all(|value| value.kind() == ValueKind::Number) {
        return Ok(());
    }
    let lists = |value: &Value| matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable);
    if args.iter().all(lists) {
        return meter::charge_container(args.iter().filter_map(Value::len).fold(0, usize::saturating_add));
    }
    let weight = meter::weigh(args)?;
    meter::charge(weight.bytes + weight.elements * meter::ELEMENT)
}

/// The operands of `*`.
fn repeated(args: &[Value]) -> Result<(), Error> {
    let times = args.iter().find_map(Value::as_usize).unwrap_or(0);
    for value in args {
        if let Some(text) = value.as_str() {
            meter::check_text(text.len().saturating_mul(times))?;
            meter::charge(text.len().saturating_mul(times))?;
        } else if meter::is_large(value) {
            meter::charge_container(value.len().unwrap_or(0).saturating_mul(times))?;
        }
    }
    Ok(())
}

/// The operands of a comparison or a search.
fn compared(args: &[Value]) -> Result<(), Error> {
    if args.iter().all(meter::is_large) {
        // A text is found in a text by reading both, and a list in a list by comparing it with each element.
        meter::weigh(args)?;
    } else {
        let longest = args.iter().filter(|value| meter::is_large(value)).filter_map(Value::len).max();
        meter::charge_reading(longest.unwrap_or(0))?;
    }
    Ok(())
}

/// Lists that are unpacked as arguments.
fn unpacked(args: &[Value]) -> Result<(), Error> {
    args.iter().try_for_each(|list| meter::charge_container(list.len().unwrap_or(0)))
}
