//! The size of the constants that the code generator computes, such as `'-' * 40`.

use minijinja::machinery::ast::{BinOpKind, Call, CallArg, Expr, Macro, Stmt};
use minijinja::{Error, Value};

use super::meter::{ELEMENT, check_text, refused};

/// Bytes of a constant that is computed to learn how often another is repeated.
const LONGEST_NUMBER: usize = 1 << 10;

/// Refuses a template whose repeated constants would be too large. The code generator computes them while it compiles,
/// where no guard can be.
///
/// # Errors
/// If they exceed the limit of a text, all together.
pub(super) fn check_constants(template: &Stmt) -> Result<(), Error> {
    let mut total = 0_usize;
    let mut add = |expression: &Expr| {
        if let Expr::BinOp(operation) = expression
            && matches!(operation.op, BinOpKind::Mul)
        {
            total = total.saturating_add(size(expression).unwrap_or(0));
        }
    };
    statements(std::slice::from_ref(template), &mut add);
    check_text(total).map_err(|error| refused(format!("constants: {}", error.detail().unwrap_or_default())))
}

/// The bytes of a constant, or more; `None` if it is not one.
fn size(expression: &Expr) -> Option<usize> {
    let sum = |items: &[Expr]| {
        items
            .iter()
            .try_fold(0_usize, |sum, item| Some(sum.saturating_add(size(item)?).saturating_add(ELEMENT)))
    };
    match expression {
        Expr::Const(constant) => Some(constant.value.as_str().map_or(0, str::len)),
        Expr::List(list) => sum(&list.items),
        Expr::Tuple(tuple) => sum(&tuple.items),
        Expr::Map(map) => Some(sum(&map.keys)?.saturating_add(sum(&map.values)?)),
        Expr::UnaryOp(operation) => size(&operation.expr),
        Expr::BinOp(operation) => {
            let (left, right) = (size(&operation.left)?, size(&operation.right)?);
            let is_list = |side: &Expr| matches!(side, Expr::List(_));
            // A repeated list is not computed before it is read.
            if !matches!(operation.op, BinOpKind::Mul)
                || is_list(&operation.left)
                || is_list(&operation.right)
            {
                return Some(left.saturating_add(right));
            }
            let times = |side: &Expr, size| {
                (size < LONGEST_NUMBER).then(|| side.as_const().as_ref().and_then(Value::as_usize)).flatten()
            };
            let times = times(&operation.left, left).max(times(&operation.right, right)).unwrap_or(1);
            Some(left.max(right).saturating_mul(times))
        }
        _ => None,
    }
}

/// Calls `each` with every expression.
fn statements(all: &[Stmt], each: &mut impl FnMut(&Expr)) {
    for statement in all {
        match statement {
            Stmt::Template(it) => statements(&it.children, each),
            Stmt::EmitExpr(it) => visit(&it.expr, each),
            Stmt::ForLoop(it) => {
                [&it.target, &it.iter].into_iter().chain(&it.filter_expr).for_each(|it| visit(it, each));
                [&it.body, &it.else_body].into_iter().for_each(|body| statements(body, each));
            }
            Stmt::IfCond(it) => {
                visit(&it.expr, each);
                [&it.true_body, &it.false_body].into_iter().for_each(|body| statements(body, each));
            }
            Stmt::WithBlock(it) => {
                it.assignments.iter().for_each(|(_, value)| visit(value, each));
                statements(&it.body, each);
            }
            Stmt::Set(it) => [&it.target, &it.expr].into_iter().for_each(|it| visit(it, each)),
            Stmt::SetBlock(it) => {
                it.filter.iter().for_each(|it| visit(it, each));
                statements(&it.body, each);
            }
            Stmt::AutoEscape(it) => {
                visit(&it.enabled, each);
                statements(&it.body, each);
            }
            Stmt::FilterBlock(it) => {
                visit(&it.filter, each);
                statements(&it.body, each);
            }
            Stmt::Block(it) => statements(&it.body, each),
            Stmt::Import(it) => visit(&it.expr, each),
            Stmt::FromImport(it) => visit(&it.expr, each),
            Stmt::Extends(it) => visit(&it.name, each),
            Stmt::Include(it) => visit(&it.name, each),
            Stmt::Macro(it) => visit_macro(it, each),
            Stmt::CallBlock(it) => {
                visit_call(&it.call, each);
                visit_macro(&it.macro_decl, each);
            }
            Stmt::Do(it) => visit_call(&it.call, each),
            Stmt::EmitRaw(_) | Stmt::Continue(_) | Stmt::Break(_) => {}
        }
    }
}

fn visit_macro(it: &Macro, each: &mut impl FnMut(&Expr)) {
    it.defaults.iter().for_each(|it| visit(it, each));
    statements(&it.body, each);
}

fn visit_call(it: &Call, each: &mut impl FnMut(&Expr)) {
    visit(&it.expr, each);
    visit_arguments(&it.args, each);
}

fn visit_arguments(arguments: &[CallArg], each: &mut impl FnMut(&Expr)) {
    for argument in arguments {
        match argument {
            CallArg::Pos(it) | CallArg::Kwarg(_, it) | CallArg::PosSplat(it) | CallArg::KwargSplat(it) => {
                visit(it, each);
            }
        }
    }
}

fn visit(expression: &Expr, each: &mut impl FnMut(&Expr)) {
    each(expression);
    match expression {
        Expr::BinOp(it) => [&it.left, &it.right].into_iter().for_each(|it| visit(it, each)),
        Expr::Slice(it) => {
            let ends = [&it.start, &it.stop, &it.step].into_iter().flatten();
            [&it.expr].into_iter().chain(ends).for_each(|it| visit(it, each));
        }
        Expr::UnaryOp(it) => visit(&it.expr, each),
        Expr::Compare(it) => {
            visit(&it.expr, each);
            it.ops.iter().for_each(|op| visit(&op.expr, each));
        }
        Expr::IfExpr(it) => {
            [&it.test_expr, &it.true_expr].into_iter().chain(&it.false_expr).for_each(|it| visit(it, each));
        }
        Expr::Filter(it) => {
            it.expr.iter().for_each(|it| visit(it, each));
            visit_arguments(&it.args, each);
        }
        Expr::Test(it) => {
            visit(&it.expr, each);
            visit_arguments(&it.args, each);
        }
        Expr::GetAttr(it) => visit(&it.expr, each),
        Expr::GetItem(it) => [&it.expr, &it.subscript_expr].into_iter().for_each(|it| visit(it, each)),
        Expr::Call(it) => visit_call(it, each),
        Expr::List(it) => it.items.iter().for_each(|it| visit(it, each)),
        Expr::Tuple(it) => it.items.iter().for_each(|it| visit(it, each)),
        Expr::Map(it) => it.keys.iter().chain(&it.values).for_each(|it| visit(it, each)),
        Expr::Var(_) | Expr::Const(_) => {}
    }
}
