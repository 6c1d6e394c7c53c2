//! Expressions.

use minijinja::machinery::ast::{BinOp, BinOpKind, Call, CallArg, CompareOpKind, Const, Expr, UnaryOpKind};

use super::{Translator, line_of, unsupported};
use crate::text::jinja::lexer::quoted;
use crate::text::jinja::value::number::float_text;
use crate::text::jinja::value::{Kind, kind};
use crate::text::jinja::{filters, tests};

/// The deepest nesting of an expression. Each level copies what is within it.
const DEEPEST: usize = 500;

impl Translator {
    /// The engine's expression.
    pub(super) fn expression(&mut self, expression: &Expr) -> Result<String, String> {
        if self.depth == DEEPEST {
            return Err(unsupported(line_of(expression), "an expression that is nested so deep"));
        }
        self.depth += 1;
        let translated = self.translated(expression);
        self.depth -= 1;
        translated
    }

    // Long because it has one arm for each kind of expression.
    fn translated(&mut self, expression: &Expr) -> Result<String, String> {
        Ok(match expression {
            Expr::Var(variable) => self.variable(variable.id, line_of(expression))?,
            Expr::Const(constant) => literal(constant),
            Expr::Slice(slice) => {
                let mut parts = vec![self.expression(&slice.expr)?];
                for bound in [&slice.start, &slice.stop, &slice.step] {
                    parts.push(match bound {
                        Some(bound) => self.expression(bound)?,
                        None => "none".to_owned(),
                    });
                }
                format!("codit__slice({})", parts.join(", "))
            }
            Expr::UnaryOp(operation) if matches!(operation.op, UnaryOpKind::Neg) => {
                format!("codit__negate({})", self.expression(&operation.expr)?)
            }
            Expr::UnaryOp(_) => {
                let (mut operand, mut negations) = (expression, String::new());
                while let Expr::UnaryOp(operation) = operand
                    && matches!(operation.op, UnaryOpKind::Not)
                {
                    negations += "not ";
                    operand = &operation.expr;
                }
                format!("({negations}{})", self.expression(operand)?)
            }
            Expr::BinOp(operation) => self.operation(operation)?,
            Expr::Compare(comparison) => {
                let mut parts = self.expression(&comparison.expr)?;
                for operand in &comparison.ops {
                    let operator = match operand.op {
                        CompareOpKind::Eq => "==",
                        CompareOpKind::Ne => "!=",
                        CompareOpKind::Lt => "<",
                        CompareOpKind::Lte => "<=",
                        CompareOpKind::Gt => ">",
                        CompareOpKind::Gte => ">=",
                        CompareOpKind::In => "in",
                        CompareOpKind::NotIn => "not in",
                    };
                    parts += &format!(", \"{operator}\", {}", self.expression(&operand.expr)?);
                }
                format!("codit__compare({parts})")
            }
            Expr::IfExpr(choice) => {
                let before = std::mem::replace(&mut self.is_conditional, true);
                let (test, chosen) =
                    (self.expression(&choice.test_expr)?, self.expression(&choice.true_expr)?);
                let other = match &choice.false_expr {
                    Some(other) => format!(" else {}", self.expression(other)?),
                    None => String::new(),
                };
                self.is_conditional = before;
                format!("({chosen} if {test}{other})")
            }
            Expr::Filter(filter) => {
                let value = match &filter.expr {
                    Some(value) => self.expression(value)?,
                    None => return Err(unsupported(line_of(expression), "a filter of nothing")),
                };
                self.filter(filter.name, &value, &filter.args, line_of(expression))?
            }
            Expr::Test(test) => {
                let name = without_spaces(test.name);
                if !tests::NAMES.contains(&name.as_str()) && !self.is_conditional {
                    return Err(format!("line {}: there is no test {name:?}", line_of(expression)));
                }
                let value = self.expression(&test.expr)?;
                format!("codit__test(\"{name}\", {value}{})", self.further_args(&test.args)?)
            }
            Expr::GetAttr(attribute) => {
                format!("codit__attribute({}, \"{}\")", self.expression(&attribute.expr)?, attribute.name)
            }
            Expr::GetItem(item) => {
                format!(
                    "codit__item({}, {})",
                    self.expression(&item.expr)?,
                    self.expression(&item.subscript_expr)?
                )
            }
            Expr::Call(call) => self.call(call, "")?,
            Expr::List(items) => format!("codit__made([{}])", self.expressions(&items.items)?.join(", ")),
            Expr::Tuple(items) if items.items.is_empty() => "()".to_owned(),
            Expr::Tuple(items) => format!("codit__made(({},))", self.expressions(&items.items)?.join(", ")),
            Expr::Map(map) => {
                let mut entries = Vec::with_capacity(map.keys.len() * 2);
                for (name, value) in map.keys.iter().zip(&map.values) {
                    entries.push(self.expression(name)?);
                    entries.push(self.expression(value)?);
                }
                // A list, because the engine limits the arguments of a call.
                format!("codit__dict([{}])", entries.join(", "))
            }
        })
    }

    fn expressions(&mut self, items: &[Expr]) -> Result<Vec<String>, String> {
        items.iter().map(|item| self.expression(item)).collect()
    }

    fn variable(&mut self, name: &str, line: u16) -> Result<String, String> {
        match name {
            "lipsum" => return Err(unsupported(line, "lipsum, which is not repeatable,")),
            "self" => return Err(unsupported(line, "self")),
            _ => {}
        }
        self.reads.insert(name.to_owned());
        Ok(name.to_owned())
    }

    fn operation(&mut self, operation: &BinOp) -> Result<String, String> {
        let operator = match operation.op {
            BinOpKind::Concat => {
                let is_concat = |operation: BinOpKind| matches!(operation, BinOpKind::Concat);
                let (first, rest) = self.chain(operation, &is_concat)?;
                let rest = rest.iter().map(|(_, operand)| format!(", {operand}")).collect::<String>();
                // Jinja joins constants before it renders, as plain text.
                let joined = if is_constant(&operation.left) && is_constant(&operation.right) {
                    "join"
                } else {
                    "concat"
                };
                return Ok(format!("codit__{joined}({first}{rest})"));
            }
            BinOpKind::ScAnd | BinOpKind::ScOr => {
                let this = symbol(operation.op);
                let (first, rest) = self.chain(operation, &|operation| symbol(operation) == this)?;
                let rest = rest
                    .iter()
                    .map(|(operator, operand)| format!(" {operator} {operand}"))
                    .collect::<String>();
                return Ok(format!("({first}{rest})"));
            }
            kind if is_arithmetic(kind) => {
                let (first, rest) = self.chain(operation, &is_arithmetic)?;
                let rest = rest
                    .iter()
                    .map(|(operator, operand)| format!(", \"{operator}\", {operand}"))
                    .collect::<String>();
                return Ok(format!("codit__arithmetic({first}{rest})"));
            }
            BinOpKind::Eq => "==",
            BinOpKind::Ne => "!=",
            BinOpKind::Lt => "<",
            BinOpKind::Lte => "<=",
            BinOpKind::Gt => ">",
            BinOpKind::Gte => ">=",
            _ => "in",
        };
        let (left, right) = (self.expression(&operation.left)?, self.expression(&operation.right)?);
        Ok(format!("codit__compare({left}, \"{operator}\", {right})"))
    }

    /// The operands of operators on the left of one another, each with its operator. (The engine's parser limits how
    /// deep calls are nested.)
    fn chain(
        &mut self,
        operation: &BinOp,
        belongs: &dyn Fn(BinOpKind) -> bool,
    ) -> Result<(String, Vec<(&'static str, String)>), String> {
        let mut rest = Vec::new();
        let mut operation = operation;
        loop {
            rest.push((symbol(operation.op), &operation.right));
            match &operation.left {
                Expr::BinOp(left) if belongs(left.op) => operation = left,
                first => {
                    let first = self.expression(first)?;
                    rest.reverse();
                    let rest: Result<Vec<_>, String> = rest
                        .into_iter()
                        .map(|(operator, operand)| Ok((operator, self.expression(operand)?)))
                        .collect();
                    return Ok((first, rest?));
                }
            }
        }
    }

    /// The application of a filter to a translated value.
    pub(super) fn filter(
        &mut self,
        name: &str,
        value: &str,
        args: &[CallArg],
        line: u16,
    ) -> Result<String, String> {
        let name = without_spaces(name);
        if filters::REFUSED.contains(&name.as_str()) {
            return Err(unsupported(line, &format!("the filter {name}")));
        }
        if !filters::NAMES.contains(&name.as_str()) && !self.is_conditional {
            return Err(format!("line {line}: there is no filter {name:?}"));
        }
        Ok(format!("codit__filter(\"{name}\", {value}{})", self.further_args(args)?))
    }

    /// A chain of filters on a translated value.
    pub(super) fn filter_chain(&mut self, chain: &Expr, value: &str) -> Result<String, String> {
        let Expr::Filter(filter) = chain else {
            return Err(unsupported(line_of(chain), "a filter of this form"));
        };
        let value = match &filter.expr {
            Some(inner) => self.filter_chain(inner, value)?,
            None => value.to_owned(),
        };
        self.filter(filter.name, &value, &filter.args, line_of(chain))
    }

    /// A call; `extra` is an argument that comes last.
    pub(super) fn call(&mut self, call: &Call, extra: &str) -> Result<String, String> {
        if let Expr::Var(variable) = &call.expr {
            match (variable.id, call.args.as_slice()) {
                // Literals that the lexer writes as calls.
                ("codit__int" | "codit__infinity", args) => {
                    return Ok(format!(
                        "{}({})",
                        variable.id,
                        self.further_args(args)?.trim_start_matches(", ")
                    ));
                }
                ("loop", [CallArg::Pos(items)])
                    if self.loops.last().is_some_and(|inner| inner.is_recursive) =>
                {
                    let shape = self.loops.last().map(|inner| inner.shape.clone()).unwrap_or_default();
                    return Ok(format!("loop(codit__iterate({}{shape}))", self.expression(items)?));
                }
                _ => {}
            }
        }
        let callee = match &call.expr {
            Expr::GetAttr(attribute) => {
                format!("codit__method({}, \"{}\"", self.expression(&attribute.expr)?, attribute.name)
            }
            callee => format!("codit__call({}", self.expression(callee)?),
        };
        Ok(format!("{callee}{}{extra})", self.further_args(&call.args)?))
    }

    /// The arguments after the first, each with its comma.
    fn further_args(&mut self, args: &[CallArg]) -> Result<String, String> {
        let mut written = String::new();
        for arg in args {
            written += &match arg {
                CallArg::Pos(value) => format!(", {}", self.expression(value)?),
                CallArg::Kwarg(name, value) => format!(", {name}={}", self.expression(value)?),
                CallArg::PosSplat(values) => format!(", *codit__iterate({})", self.expression(values)?),
                CallArg::KwargSplat(values) => format!(", **codit__keywords({})", self.expression(values)?),
            };
        }
        Ok(written)
    }
}

/// Whether Jinja knows the value before it renders.
fn is_constant(expression: &Expr) -> bool {
    match expression {
        Expr::Const(_) => true,
        Expr::List(list) => list.items.iter().all(is_constant),
        Expr::Tuple(tuple) => tuple.items.iter().all(is_constant),
        Expr::Map(map) => map.keys.iter().chain(&map.values).all(is_constant),
        Expr::UnaryOp(operation) => is_constant(&operation.expr),
        Expr::GetAttr(attribute) => is_constant(&attribute.expr),
        Expr::GetItem(item) => is_constant(&item.expr) && is_constant(&item.subscript_expr),
        Expr::IfExpr(choice) => {
            let other = choice.false_expr.as_ref().is_none_or(is_constant);
            is_constant(&choice.test_expr) && is_constant(&choice.true_expr) && other
        }
        Expr::BinOp(operation) => is_constant(&operation.left) && is_constant(&operation.right),
        Expr::Filter(filter) => {
            let takes_context =
                ["map", "reject", "rejectattr", "select", "selectattr"].contains(&filter.name);
            let is_constant_arg = |arg: &CallArg| matches!(arg, CallArg::Pos(value) | CallArg::Kwarg(_, value) if is_constant(value));
            !takes_context
                && filter.expr.as_ref().is_some_and(is_constant)
                && filter.args.iter().all(is_constant_arg)
        }
        _ => false,
    }
}

/// The symbol of an operator that is not a comparison.
fn symbol(operator: BinOpKind) -> &'static str {
    match operator {
        BinOpKind::ScAnd => "and",
        BinOpKind::ScOr => "or",
        BinOpKind::Add => "+",
        BinOpKind::Sub => "-",
        BinOpKind::Mul => "*",
        BinOpKind::Div => "/",
        BinOpKind::FloorDiv => "//",
        BinOpKind::Rem => "%",
        BinOpKind::Pow => "**",
        _ => "",
    }
}

fn is_arithmetic(operator: BinOpKind) -> bool {
    !matches!(symbol(operator), "" | "and" | "or")
}

/// The names of filters and tests may have white space around their dots.
fn without_spaces(name: &str) -> String {
    name.split_whitespace().collect()
}

fn literal(constant: &Const) -> String {
    match kind(&constant.value) {
        Kind::Str(text) => quoted(text),
        Kind::None => "none".to_owned(),
        Kind::Bool(flag) => flag.to_string(),
        Kind::Float(float) => float_text(float),
        _ => constant.value.to_string(),
    }
}
