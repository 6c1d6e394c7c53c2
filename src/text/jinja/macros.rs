//! Macros with Python's rules for arguments, on top of the engine's macros, which take one list.

use std::sync::Arc;

use minijinja::value::{Object, ObjectRepr};
use minijinja::{Error, State, Value};

use super::value::args::Args;
use super::value::dict::Dict;
use super::value::objects::Missing;
use super::value::{list, refused, tuple};

/// A macro of the template, or the body of a call block.
#[derive(Debug)]
pub(super) struct Macro {
    /// The engine's macro.
    body: Value,
    name: String,
    parameters: Vec<String>,
    takes_varargs: bool,
    takes_kwargs: bool,
    takes_caller: bool,
}

impl Macro {
    /// `body`, the name, the names of the parameters, and which of `varargs`, `kwargs` and `caller` the body reads.
    pub(super) fn of(args: &[Value]) -> Result<Value, Error> {
        let [body, name, parameters, reads] = args else { return Err(refused("not a macro")) };
        let names = |value: &Value| {
            value.as_str().unwrap_or_default().split_whitespace().map(str::to_owned).collect()
        };
        let reads: Vec<String> = names(reads);
        let reads = |name: &str| reads.iter().any(|read| read == name);
        Ok(Value::from_object(Self {
            body: body.clone(),
            name: name.as_str().unwrap_or_default().to_owned(),
            parameters: names(parameters),
            takes_varargs: reads("varargs"),
            takes_kwargs: reads("kwargs"),
            takes_caller: reads("caller"),
        }))
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// `macro.name` and the other attributes.
    pub(super) fn attribute(&self, name: &str) -> Option<Value> {
        match name {
            "name" => Some(Value::from(self.name.as_str())),
            "arguments" => {
                Some(tuple(self.parameters.iter().map(|name| Value::from(name.as_str())).collect()))
            }
            "catch_kwargs" => Some(Value::from(self.takes_kwargs)),
            "catch_varargs" => Some(Value::from(self.takes_varargs)),
            "caller" => Some(Value::from(self.takes_caller)),
            _ => None,
        }
    }

    /// The values of the parameters, then `varargs`, `kwargs` and `caller`.
    fn bind(&self, args: Args) -> Result<Vec<Value>, Error> {
        let mut keywords = args.keywords;
        let mut take = |name: &str| {
            let index = keywords.iter().position(|(keyword, _)| keyword == name)?;
            Some(keywords.remove(index).1)
        };
        let count = self.parameters.len();
        let mut bound: Vec<Value> = args.positional.iter().take(count).cloned().collect();
        for name in &self.parameters[bound.len()..] {
            bound.push(take(name).unwrap_or_else(|| Value::from_object(Missing)));
        }
        let caller = if self.takes_caller { take("caller").filter(|caller| !caller.is_none()) } else { None };
        let rest = args.positional.get(count..).unwrap_or_default().to_vec();
        if !rest.is_empty() && !self.takes_varargs {
            return Err(refused(format!("macro {}() takes at most {count} arguments", self.name)));
        }
        if let Some((name, _)) = keywords.first()
            && !self.takes_kwargs
        {
            return Err(refused(format!("macro {}() has no parameter {name}", self.name)));
        }
        let mut kwargs = Dict::default();
        for (name, value) in keywords {
            kwargs.insert_text(&name, value);
        }
        bound.extend([tuple(rest), Value::from_object(kwargs), caller.unwrap_or_default()]);
        Ok(bound)
    }
}

impl Object for Macro {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
        let bound = self.bind(Args::new(args)?)?;
        self.body.call(state, &[list(bound)])
    }
}

/// Whether an argument is not given.
pub(super) fn is_missing(value: &Value) -> bool {
    value.downcast_object_ref::<Missing>().is_some()
}
