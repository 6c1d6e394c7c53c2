//! Statements.

use minijinja::machinery::ast::{CallBlock, Expr, ForLoop, IfCond, Macro, SetBlock, Stmt, WithBlock};

use super::{BLOCK, Loop, Translator, VARIABLE, line_of, unsupported};

/// Bytes of a text that is not charged for when it is printed: the limit of steps bounds those.
const SHORT_TEXT: usize = 16;

impl Translator {
    /// Writes statements; whether one of them may end the loop's body from within a block.
    pub(super) fn statements(&mut self, statements: &[Stmt]) -> Result<bool, String> {
        for (index, statement) in statements.iter().enumerate() {
            if !self.statement(statement)? {
                continue;
            }
            let rest = &statements[index + 1..];
            if !rest.is_empty() {
                self.if_running()?;
                self.statements(rest)?;
                self.block("endif");
            }
            return Ok(true);
        }
        Ok(false)
    }

    fn statement(&mut self, statement: &Stmt) -> Result<bool, String> {
        match statement {
            Stmt::Template(template) => self.statements(&template.children),
            Stmt::EmitRaw(raw) => {
                self.data(raw.raw);
                if raw.raw.len() > SHORT_TEXT {
                    self.tag(VARIABLE, None, &format!("codit__printed({})", raw.raw.len()));
                }
                Ok(false)
            }
            Stmt::EmitExpr(emit) => {
                let value = self.expression(&emit.expr)?;
                self.tag(VARIABLE, Some(emit.span().start_line), &value);
                Ok(false)
            }
            Stmt::ForLoop(inner) => self.for_loop(inner, inner.span().start_line),
            Stmt::IfCond(condition) => self.condition(condition, condition.span().start_line),
            Stmt::WithBlock(with) => self.with_block(with, with.span().start_line),
            Stmt::Set(set) => {
                let value = self.expression(&set.expr)?;
                self.assign(&set.target, &value, set.span().start_line)?;
                Ok(false)
            }
            Stmt::SetBlock(set) => self.set_block(set, set.span().start_line),
            Stmt::FilterBlock(filter) => {
                let captured = self.name("text");
                let interrupts = self.capture(&captured, &filter.body, filter.span().start_line)?;
                self.guarded(interrupts, |translator| {
                    let value = translator.filter_chain(&filter.filter, &captured)?;
                    translator.tag(VARIABLE, None, &format!("codit__raw({value})"));
                    Ok(())
                })
            }
            Stmt::AutoEscape(escape) => {
                let enabled = self.expression(&escape.enabled)?;
                self.tag(
                    BLOCK,
                    Some(escape.span().start_line),
                    &format!("autoescape codit__truth({enabled})"),
                );
                self.block("with");
                let before =
                    self.loops.last_mut().map(|inner| std::mem::replace(&mut inner.in_autoescape, true));
                self.statements(&escape.body)?;
                if let (Some(inner), Some(before)) = (self.loops.last_mut(), before) {
                    inner.in_autoescape = before;
                }
                self.block("endwith");
                self.block("endautoescape");
                Ok(false)
            }
            Stmt::Macro(declared) => {
                let body = self.macro_body(declared, declared.span().start_line)?;
                self.block(&format!("set {} = {body}", declared.name));
                Ok(false)
            }
            Stmt::CallBlock(call) => self.call_block(call, call.span().start_line),
            Stmt::Continue(at) => self.leave("continue", at.span().start_line),
            Stmt::Break(at) => self.leave("break", at.span().start_line),
            // At the top a block is a scope; elsewhere Jinja hides the variables around it.
            Stmt::Block(block) if self.scopes == 0 && self.loops.is_empty() && !block.required => {
                self.nested(&block.body)
            }
            Stmt::Block(at) => Err(unsupported(at.span().start_line, "{% block %} in another block")),
            Stmt::Import(at) => Err(unsupported(at.span().start_line, "{% import %}")),
            Stmt::FromImport(at) => Err(unsupported(at.span().start_line, "{% from %}")),
            Stmt::Extends(at) => Err(unsupported(at.span().start_line, "{% extends %}")),
            Stmt::Include(at) => Err(unsupported(at.span().start_line, "{% include %}")),
            Stmt::Do(at) => Err(unsupported(at.span().start_line, "{% do %}")),
        }
    }

    fn for_loop(&mut self, inner: &ForLoop, line: u16) -> Result<bool, String> {
        let items = self.expression(&inner.iter)?;
        let shape = shape(&inner.target).map_or_else(String::new, |shape| format!(", {shape}"));
        let target = plain_target(&inner.target)?;
        let is_conditional = std::mem::replace(&mut self.is_conditional, false);
        let filter = match &inner.filter_expr {
            Some(filter) => format!(" if {}", self.expression(filter)?),
            None => String::new(),
        };
        let recursive = if inner.recursive { " recursive" } else { "" };
        let opening = format!("for {target} in codit__iterate({items}{shape}){filter}{recursive}");
        self.tag(BLOCK, Some(line), &opening);
        let flow = self.name("flow");
        self.loops.push(Loop { flow, shape, is_recursive: inner.recursive, ..Loop::default() });
        let start = self.out.len();
        self.statements(&inner.body)?;
        if let Some(Loop { flow, uses_flow: true, .. }) = self.loops.pop() {
            let [open, close] = BLOCK;
            self.out.insert_str(start, &format!("{open} set {flow} = codit__flow() {close}"));
        }
        let mut interrupts = false;
        if !inner.else_body.is_empty() {
            self.block("else");
            interrupts = self.nested(&inner.else_body)?;
        }
        self.block("endfor");
        self.is_conditional = is_conditional;
        self.guarded(interrupts, |_| Ok(()))
    }

    fn condition(&mut self, condition: &IfCond, line: u16) -> Result<bool, String> {
        let is_conditional = std::mem::replace(&mut self.is_conditional, true);
        let test = self.expression(&condition.expr)?;
        self.tag(BLOCK, Some(line), &format!("if {test}"));
        let mut interrupts = self.statements(&condition.true_body)?;
        let mut rest = &condition.false_body;
        while let [Stmt::IfCond(next)] = rest.as_slice() {
            let test = self.expression(&next.expr)?;
            self.tag(BLOCK, Some(next.span().start_line), &format!("elif {test}"));
            interrupts |= self.statements(&next.true_body)?;
            rest = &next.false_body;
        }
        if !rest.is_empty() {
            self.block("else");
            interrupts |= self.statements(rest)?;
        }
        self.block("endif");
        self.is_conditional = is_conditional;
        Ok(interrupts)
    }

    fn with_block(&mut self, with: &WithBlock, line: u16) -> Result<bool, String> {
        let (mut targets, mut values) = (Vec::new(), Vec::new());
        for (target, value) in &with.assignments {
            let value = self.expression(value)?;
            values.push(unpacked(target, value));
            targets.push(plain_target(target)?);
        }
        // All values are read before the first name is set.
        let assignments = if targets.is_empty() {
            String::new()
        } else {
            format!(" ({},) = [{}]", targets.join(", "), values.join(", "))
        };
        self.tag(BLOCK, Some(line), &format!("with{assignments}"));
        let interrupts = self.blocked(&with.body)?;
        self.block("endwith");
        self.guarded(interrupts, |_| Ok(()))
    }

    fn set_block(&mut self, set: &SetBlock, line: u16) -> Result<bool, String> {
        let captured = self.name("text");
        let interrupts = self.capture(&captured, &set.body, line)?;
        self.guarded(interrupts, |translator| {
            let value = match &set.filter {
                Some(filter) => format!("codit__marked({})", translator.filter_chain(filter, &captured)?),
                None => captured.clone(),
            };
            translator.assign(&set.target, &value, line)
        })
    }

    /// Writes a block whose output becomes a variable.
    fn capture(&mut self, name: &str, body: &[Stmt], line: u16) -> Result<bool, String> {
        self.tag(BLOCK, Some(line), &format!("set {name}"));
        let interrupts = self.nested(body)?;
        self.block("endset");
        Ok(interrupts)
    }

    /// Writes a body in a scope of its own.
    fn nested(&mut self, body: &[Stmt]) -> Result<bool, String> {
        self.block("with");
        let interrupts = self.blocked(body)?;
        self.block("endwith");
        Ok(interrupts)
    }

    /// Writes the body of a block that the engine's own `break` cannot leave.
    fn blocked(&mut self, body: &[Stmt]) -> Result<bool, String> {
        let is_conditional = std::mem::replace(&mut self.is_conditional, false);
        if let Some(inner) = self.loops.last_mut() {
            inner.depth += 1;
        }
        self.scopes += 1;
        let interrupts = self.statements(body)?;
        self.scopes -= 1;
        if let Some(inner) = self.loops.last_mut() {
            inner.depth -= 1;
        }
        self.is_conditional = is_conditional;
        Ok(interrupts)
    }

    /// Writes what follows a block, unless the block ends the loop's body; whether outer blocks must ask too.
    fn guarded(
        &mut self,
        interrupts: bool,
        write: impl FnOnce(&mut Self) -> Result<(), String>,
    ) -> Result<bool, String> {
        if !interrupts {
            write(self)?;
            return Ok(false);
        }
        let Some(inner) = self.loops.last() else { return Ok(false) };
        let flow = inner.flow.clone();
        if inner.depth > 0 {
            self.if_running()?;
            write(self)?;
            self.block("endif");
            return Ok(true);
        }
        for leave in ["break", "continue"] {
            self.block(&format!("if codit__left({flow}, \"{leave}\")"));
            self.block(leave);
            self.block("endif");
        }
        write(self)?;
        Ok(false)
    }

    fn if_running(&mut self) -> Result<(), String> {
        let flow =
            self.loops.last().map(|inner| inner.flow.clone()).ok_or("a loop is left outside of a loop")?;
        self.block(&format!("if codit__left({flow}, \"\")"));
        Ok(())
    }

    /// `break` or `continue`.
    fn leave(&mut self, how: &str, line: u16) -> Result<bool, String> {
        let Some(inner) = self.loops.last_mut() else {
            return Err(format!("line {line}: {{% {how} %}} is outside of a loop"));
        };
        if inner.in_autoescape {
            return Err(unsupported(line, &format!("{{% {how} %}} in {{% autoescape %}}")));
        }
        if inner.depth == 0 {
            self.tag(BLOCK, Some(line), how);
            return Ok(false);
        }
        inner.uses_flow = true;
        let flow = inner.flow.clone();
        self.tag(BLOCK, Some(line), &format!("do codit__leave({flow}, \"{how}\")"));
        Ok(true)
    }

    /// Writes an assignment of a translated value.
    fn assign(&mut self, target: &Expr, value: &str, line: u16) -> Result<(), String> {
        if let Expr::GetAttr(attribute) = target {
            let object = self.expression(&attribute.expr)?;
            if !matches!(attribute.expr, Expr::Var(_)) {
                return Err(unsupported(line, "an assignment to an attribute of an attribute"));
            }
            let set = format!("do codit__set({object}, \"{}\", {value})", attribute.name);
            self.tag(BLOCK, Some(line), &set);
            return Ok(());
        }
        let value = unpacked(target, value.to_owned());
        let mut attributes = Vec::new();
        let target = self.target(target, &mut attributes)?;
        self.tag(BLOCK, Some(line), &format!("set {target} = {value}"));
        for (object, name, temporary) in attributes {
            self.block(&format!("do codit__set({object}, \"{name}\", {temporary})"));
        }
        Ok(())
    }

    /// The targets, in which variables stand for attributes: those are set afterwards.
    fn target(
        &mut self,
        target: &Expr,
        attributes: &mut Vec<(String, String, String)>,
    ) -> Result<String, String> {
        match target {
            Expr::List(targets) => {
                let targets: Result<Vec<String>, String> =
                    targets.items.iter().map(|target| self.target(target, attributes)).collect();
                Ok(format!("({},)", targets?.join(", ")))
            }
            Expr::GetAttr(attribute) => {
                let temporary = self.name("value");
                attributes.push((
                    self.expression(&attribute.expr)?,
                    attribute.name.to_owned(),
                    temporary.clone(),
                ));
                Ok(temporary)
            }
            target => plain_target(target),
        }
    }

    /// Writes the engine's macro of one argument; the expression of the macro with Python's arguments.
    fn macro_body(&mut self, declared: &Macro, line: u16) -> Result<String, String> {
        let (name, args) = (self.name("macro"), self.name("args"));
        self.tag(BLOCK, Some(line), &format!("macro {name}({args})"));
        let start = self.out.len();
        let loops = std::mem::take(&mut self.loops);
        let reads = std::mem::take(&mut self.reads);
        let is_conditional = std::mem::replace(&mut self.is_conditional, false);
        let mut parameters = Vec::new();
        for parameter in &declared.args {
            parameters.push(plain_target(parameter)?);
        }
        let without_default = parameters.len() - declared.defaults.len();
        let [open, close] = BLOCK;
        let mut prelude = String::new();
        for (index, parameter) in parameters.iter().enumerate() {
            prelude += &format!("{open} set {parameter} = codit__given({args}, {index}) {close}");
        }
        for (index, default) in declared.defaults.iter().enumerate() {
            let index = without_default + index;
            let default = self.expression(default)?;
            prelude += &format!("{open} if codit__missing({args}, {index}) {close}");
            prelude += &format!("{open} set {} = {default} {close}{open} endif {close}", parameters[index]);
        }
        self.statements(&declared.body)?;
        self.block("endmacro");
        let mut special = Vec::new();
        for (index, name) in ["varargs", "kwargs", "caller"].into_iter().enumerate() {
            if self.reads.contains(name) && !parameters.iter().any(|parameter| parameter == name) {
                let index = parameters.len() + index;
                prelude += &format!("{open} set {name} = codit__given({args}, {index}) {close}");
                special.push(name);
            }
        }
        self.out.insert_str(start, &prelude);
        self.loops = loops;
        self.reads.extend(reads);
        self.is_conditional = is_conditional;
        let (parameters, special) = (parameters.join(" "), special.join(" "));
        Ok(format!("codit__macro({name}, \"{}\", \"{parameters}\", \"{special}\")", declared.name))
    }

    fn call_block(&mut self, block: &CallBlock, line: u16) -> Result<bool, String> {
        if let Expr::Var(variable) = &block.call.expr
            && variable.id == "codit__generation"
        {
            // The engine's parser refuses a `break` in it that leaves a loop around it, as Python does.
            let loops = std::mem::take(&mut self.loops);
            self.nested(&block.macro_decl.body)?;
            self.loops = loops;
            return Ok(false);
        }
        let caller = self.macro_body(&block.macro_decl, line)?;
        let call = self.call(&block.call, &format!(", caller={caller}"))?;
        self.tag(VARIABLE, Some(line_of(&block.call.expr)), &format!("codit__raw({call})"));
        Ok(false)
    }
}

/// A target without attributes.
fn plain_target(target: &Expr) -> Result<String, String> {
    match target {
        Expr::Var(variable) => Ok(variable.id.to_owned()),
        Expr::List(targets) => {
            let targets: Result<Vec<String>, String> = targets.items.iter().map(plain_target).collect();
            Ok(format!("({},)", targets?.join(", ")))
        }
        other => Err(unsupported(line_of(other), "an assignment to this")),
    }
}

/// How a value is unpacked: a list with the shapes of its items; `None` if it is not.
fn shape(target: &Expr) -> Option<String> {
    let Expr::List(targets) = target else { return None };
    let shapes: Vec<String> =
        targets.items.iter().map(|target| shape(target).unwrap_or_else(|| "none".to_owned())).collect();
    Some(format!("[{}]", shapes.join(", ")))
}

fn unpacked(target: &Expr, value: String) -> String {
    match shape(target) {
        Some(shape) => format!("codit__unpack({value}, {shape})"),
        None => value,
    }
}
