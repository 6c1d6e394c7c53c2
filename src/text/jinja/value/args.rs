//! The arguments of a call, bound to parameters as Python binds them.

use minijinja::value::Kwargs;
use minijinja::{Error, Value};

use super::{Kind, kind, refused, type_name};

/// The arguments of a call.
#[derive(Debug, Default, Clone)]
pub(in crate::text::jinja) struct Args {
    pub(in crate::text::jinja) positional: Vec<Value>,
    pub(in crate::text::jinja) keywords: Vec<(String, Value)>,
}

impl Args {
    /// The engine passes keywords as the last argument.
    pub(in crate::text::jinja) fn new(args: &[Value]) -> Result<Self, Error> {
        let Some((last, before)) = args.split_last() else { return Ok(Self::default()) };
        if !last.is_kwargs() {
            return Ok(Self { positional: args.to_vec(), keywords: Vec::new() });
        }
        let kwargs = Kwargs::try_from(last.clone())?;
        let keywords: Result<Vec<_>, Error> =
            kwargs.args().map(|name| Ok((name.to_owned(), kwargs.peek::<Value>(name)?))).collect();
        Ok(Self { positional: before.to_vec(), keywords: keywords? })
    }

    /// The arguments after the first.
    pub(in crate::text::jinja) fn without_first(&self) -> Self {
        Self {
            positional: self.positional.get(1..).unwrap_or_default().to_vec(),
            keywords: self.keywords.clone(),
        }
    }

    /// The value of each parameter; `None` where it is not given. A parameter whose name begins with `/` is
    /// positional only.
    pub(in crate::text::jinja) fn bind<const N: usize>(
        &self,
        function: &str,
        parameters: [&str; N],
    ) -> Result<[Option<Value>; N], Error> {
        if self.positional.len() > N {
            return Err(refused(format!(
                "{function}() takes at most {N} arguments ({} given)",
                self.positional.len()
            )));
        }
        let mut bound = [const { None }; N];
        for (slot, value) in bound.iter_mut().zip(&self.positional) {
            *slot = Some(value.clone());
        }
        for (name, value) in &self.keywords {
            let Some(index) = parameters.iter().position(|parameter| parameter == name) else {
                return Err(refused(format!("{function}() has no parameter {name}")));
            };
            if bound[index].replace(value.clone()).is_some() {
                return Err(refused(format!("{function}() has two values for {name}")));
            }
        }
        Ok(bound)
    }
}

/// The value of a parameter that has no default.
pub(in crate::text::jinja) fn needed(value: Option<Value>, function: &str) -> Result<Value, Error> {
    value.ok_or_else(|| refused(format!("{function}() lacks an argument")))
}

/// A text.
pub(in crate::text::jinja) fn as_text<'value>(
    value: &'value Value,
    function: &str,
) -> Result<&'value str, Error> {
    value.as_str().ok_or_else(|| refused(format!("{function}() needs a str, not {}", type_name(value))))
}

/// An integer; a wider one counts as the widest.
pub(in crate::text::jinja) fn as_int(value: &Value, function: &str) -> Result<i64, Error> {
    match kind(value) {
        Kind::Bool(flag) => Ok(i64::from(flag)),
        Kind::Int(number) => {
            Ok(i64::try_from(number).unwrap_or(if number < 0 { i64::MIN } else { i64::MAX }))
        }
        Kind::Wide(number) => Ok(if number.sign() == num_bigint::Sign::Minus { i64::MIN } else { i64::MAX }),
        _ => Err(refused(format!("{function}() needs an int, not {}", type_name(value)))),
    }
}

/// An integer, or `default` where it is not given.
pub(in crate::text::jinja) fn int_or(
    value: Option<&Value>,
    default: i64,
    function: &str,
) -> Result<i64, Error> {
    value.map_or(Ok(default), |value| as_int(value, function))
}

/// The truth of a value, or `default` where it is not given.
pub(in crate::text::jinja) fn flag(value: Option<&Value>, default: bool) -> bool {
    value.map_or(default, Value::is_true)
}

/// A given value that is not `none`.
pub(in crate::text::jinja) fn some(value: Option<Value>) -> Option<Value> {
    value.filter(|value| !value.is_none())
}
