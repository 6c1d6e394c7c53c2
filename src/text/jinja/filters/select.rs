//! The filters that apply a filter or a test to each item.

use minijinja::{Error, State, Value};

use super::apply as apply_filter;
use crate::text::jinja::tests;
use crate::text::jinja::value::args::{Args, as_text};
use crate::text::jinja::value::objects::Generator;
use crate::text::jinja::value::{attributes, refused, sequence};

pub(super) fn apply(state: &mut State, name: &str, value: &Value, args: &Args) -> Result<Value, Error> {
    if !value.is_true() {
        return Ok(Generator::of_values(Vec::new()));
    }
    let items = sequence::items(value)?;
    if name == "map" {
        let map = Map::new(args)?;
        return Ok(Generator::of(items.iter().map(|item| map.apply(state, item))));
    }
    let select = Select::new(name, args)?;
    let selected = items.into_iter().map(|item| match select.keeps(state, &item) {
        Ok(true) => Some(Ok(item)),
        Ok(false) => None,
        Err(error) => Some(Err(error)),
    });
    Ok(Generator::of(selected.flatten()))
}

/// What `map` does with an item.
enum Map<'args> {
    Attribute { path: &'args Value, default: Option<&'args Value> },
    Filter { name: &'args str, args: Args },
}

impl<'args> Map<'args> {
    fn new(args: &'args Args) -> Result<Self, Error> {
        if args.positional.is_empty() {
            let (mut path, mut default) = (None, None);
            for (name, value) in &args.keywords {
                match name.as_str() {
                    "attribute" => path = Some(value),
                    "default" => default = Some(value).filter(|default| !default.is_none()),
                    _ => return Err(refused(format!("map has no parameter {name}"))),
                }
            }
            let path = path.ok_or_else(|| refused("map needs a filter or an attribute"))?;
            return Ok(Self::Attribute { path, default });
        }
        Ok(Self::Filter { name: as_text(&args.positional[0], "map")?, args: args.without_first() })
    }

    fn apply(&self, state: &mut State, item: &Value) -> Result<Value, Error> {
        match self {
            Self::Attribute { path, default } => attributes::path(item, path, *default),
            Self::Filter { name, args } => apply_filter(state, name, item, args),
        }
    }
}

/// What `select` and its like ask of an item.
struct Select<'args> {
    path: Option<&'args Value>,
    test: Option<(&'args str, Args)>,
    wanted: bool,
}

impl<'args> Select<'args> {
    fn new(name: &str, args: &'args Args) -> Result<Self, Error> {
        let wanted = name.starts_with("select");
        let path = if name.ends_with("attr") {
            let path = args.positional.first();
            Some(path.ok_or_else(|| refused(format!("{name} needs the name of an attribute")))?)
        } else {
            None
        };
        let args = if path.is_some() {
            (args.positional.get(1), args.without_first())
        } else {
            (args.positional.first(), args.clone())
        };
        let test = match args.0 {
            Some(test) => Some((as_text(test, name)?, args.1.without_first())),
            None => None,
        };
        Ok(Self { path, test, wanted })
    }

    fn keeps(&self, state: &mut State, item: &Value) -> Result<bool, Error> {
        let value = match self.path {
            Some(path) => attributes::path(item, path, None)?,
            None => item.clone(),
        };
        let holds = match &self.test {
            Some((name, args)) => tests::run(state, name, &value, args)?,
            None => value.is_true(),
        };
        Ok(holds == self.wanted)
    }
}
