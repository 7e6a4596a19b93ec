//! What of the engine's language a template may use, and what can be told of it without a payload.
//!
//! Allowed is what cannot grow beyond what it is given: text, values, if, for over parts of the payload, filters of our own,
//! tests, comparisons, logic, and `~` within a bound. Everything that binds a new value (set, with, macro) or builds from a
//! number (`*`, `**`, `+`, range) is not: a few lines of it fill any memory.

use crate::domain::template::filters;
use minijinja::Value;
use minijinja::machinery::ast::{BinOpKind, CallArg, Expr, ForLoop, Stmt};
use minijinja::machinery::{Token, parse, tokenize};
use minijinja::syntax::SyntaxConfig;
use std::collections::BTreeSet;
use std::fmt;

/// `htpasswd` costs a twentieth of a second each time.
const MAX_HTPASSWD: usize = 4;
/// The engine walks a text up to the character that is asked for; so few are next to nothing.
const NEAR: usize = 1000;
/// Words and signs between {{ and }}.
const MAX_WORDS: usize = 128;
/// Brackets within each other.
const MAX_BRACKETS: usize = 8;
/// Blocks within each other; each elif is one.
const MAX_BLOCKS: usize = 16;
/// The tests.
const TESTS: [&str; 5] = ["defined", "undefined", "none", "string", "number"];
/// Filters whose result a for loop may walk.
const WALKED: [&str; 6] = ["items", "dictsort", "keys", "lines", "split", "default"];

/// What is known of a template.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// How often texts are joined by `~`.
    pub(super) joins: usize,
    /// How often a text or an object may be walked uncounted, to compare it, to look for another in it, or for its nth part: in
    /// a loop without end.
    pub(super) comparisons: usize,
    /// Whether it has a loop.
    pub(super) loops: bool,
    /// How often `htpasswd` stands in it.
    pub(super) htpasswds: usize,
    /// Places in the payload that have to be there.
    pub(super) paths: Vec<Path>,
}

/// A place in the payload, as a template names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Path(Vec<String>);

impl Path {
    /// Whether a payload has it.
    pub(super) fn is_in(&self, root: &Value) -> bool {
        let found = self.0.iter().try_fold(root.clone(), |here, name| {
            if let Some(text) = here.as_str() {
                // Not walked to say so: all that is missing is looked for.
                return name.parse::<usize>().is_ok_and(|n| n < text.len()).then(|| Value::from(""));
            }
            let next = here.get_item(&Value::from(name.as_str())).ok()?;
            let next = if next.is_undefined() {
                name.parse::<usize>().ok().and_then(|n| here.get_item(&Value::from(n)).ok())?
            } else {
                next
            };
            (!next.is_undefined()).then_some(next)
        });
        found.is_some()
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, name) in self.0.iter().enumerate() {
            let plain = name.chars().all(|c| c.is_alphanumeric() || c == '_');
            match (at, plain) {
                (0, _) => f.write_str(name)?,
                (_, true) => write!(f, ".{name}")?,
                (_, false) => write!(f, "[{name:?}]")?,
            }
        }
        Ok(())
    }
}

/// A line break at the end is kept as it was written.
pub(super) fn syntax() -> SyntaxConfig {
    SyntaxConfig::builder().keep_trailing_newline(true).build().unwrap_or_default()
}

/// Reads a template.
pub(super) fn read(text: &str) -> Result<Facts, String> {
    shallow(text)?;
    let parsed = parse(text, "template", syntax()).map_err(|error| {
        let line = error.line().map_or(1, |line| line);
        format!("line {line}: it is not understood")
    })?;
    let mut walk = Walk { facts: Facts::default(), names: vec!["loop".to_owned()], seen: BTreeSet::new(), depth: 0 };
    walk.statement(&parsed)?;
    Ok(walk.facts)
}

/// Parser, compiler and we descend as deep as the text is nested, on a stack of 2 MiB: what is deep is refused before.
fn shallow(text: &str) -> Result<(), String> {
    let (mut words, mut brackets, mut blocks) = (0_usize, 0_usize, vec![0_usize]);
    let mut tag = None;
    for token in tokenize(text, false, syntax()) {
        // What cannot be read is told by the parser.
        let Ok((token, span)) = token else { return Ok(()) };
        words += 1;
        match token {
            Token::VariableStart | Token::BlockStart => {
                (words, brackets) = (0, 0);
                tag = Some(matches!(token, Token::BlockStart));
                continue;
            }
            Token::Ident(name) if tag == Some(true) => match name {
                "if" | "for" => blocks.push(1),
                "elif" => blocks.iter_mut().last().into_iter().for_each(|depth| *depth += 1),
                name if name.starts_with("end") => drop(blocks.pop()),
                _ => {}
            },
            Token::ParenOpen | Token::BracketOpen | Token::BraceOpen => brackets += 1,
            Token::ParenClose | Token::BracketClose | Token::BraceClose => brackets = brackets.saturating_sub(1),
            _ => {}
        }
        tag = None;
        if words > MAX_WORDS || brackets > MAX_BRACKETS || blocks.iter().sum::<usize>() > MAX_BLOCKS {
            return Err(format!(
                "line {}: it is too deep or too long; one tag holds at most {MAX_WORDS} words, {MAX_BRACKETS} brackets within \
                 each other, and {MAX_BLOCKS} blocks are within each other",
                span.start_line
            ));
        }
    }
    Ok(())
}

struct Walk {
    facts: Facts,
    /// Names that loops give.
    names: Vec<String>,
    /// Places that were met.
    seen: BTreeSet<Path>,
    depth: usize,
}

fn refused<T>(line: u16, what: &str) -> Result<T, String> {
    Err(format!("line {line}: {what} is not allowed in a template"))
}

impl Walk {
    fn statement(&mut self, statement: &Stmt<'_>) -> Result<(), String> {
        match statement {
            Stmt::Template(all) => self.body(&all.children),
            Stmt::EmitRaw(_) => Ok(()),
            Stmt::EmitExpr(emit) => self.expression(&emit.expr),
            Stmt::IfCond(cond) => {
                self.expression(&cond.expr)?;
                self.body(&cond.true_body)?;
                self.body(&cond.false_body)
            }
            Stmt::ForLoop(each) => self.each(each, each.span().start_line),
            Stmt::WithBlock(with) => refused(with.span().start_line, "with"),
            Stmt::Set(set) => refused(set.span().start_line, "set"),
            Stmt::SetBlock(set) => refused(set.span().start_line, "set"),
            Stmt::AutoEscape(block) => refused(block.span().start_line, "autoescape"),
            Stmt::FilterBlock(block) => refused(block.span().start_line, "a filter block"),
            Stmt::Do(call) => refused(call.span().start_line, "do"),
        }
    }

    fn body(&mut self, body: &[Stmt<'_>]) -> Result<(), String> {
        body.iter().try_for_each(|statement| self.statement(statement))
    }

    fn each(&mut self, each: &ForLoop<'_>, line: u16) -> Result<(), String> {
        if each.recursive {
            return refused(line, "a recursive for");
        }
        if !walkable(&each.iter) {
            return refused(line, "a for over anything but a part of the payload");
        }
        self.expression(&each.iter)?;
        let known = self.names.len();
        match &each.target {
            Expr::Var(var) => self.names.push(var.id.to_owned()),
            Expr::Tuple(all) => self.names.extend(all.items.iter().filter_map(name)),
            Expr::List(all) => self.names.extend(all.items.iter().filter_map(name)),
            _ => return refused(line, "such a name in a for"),
        }
        self.depth += 1;
        self.facts.loops = true;
        each.filter_expr.iter().try_for_each(|expression| self.expression(expression))?;
        self.body(&each.body)?;
        self.depth -= 1;
        self.names.truncate(known);
        self.body(&each.else_body)
    }

    fn expression(&mut self, expression: &Expr<'_>) -> Result<(), String> {
        let line = expression.span().start_line;
        if let Some(path) = self.place(expression) {
            if !self.names.contains(&path.0[0]) && self.seen.insert(path.clone()) {
                self.facts.paths.push(path);
            }
            return Ok(());
        }
        match expression {
            Expr::Var(_) | Expr::Const(_) => Ok(()),
            // The engine counts what one gives, not what it walks and copies for it.
            Expr::Slice(_) => refused(line, "a slice (take parts with split, lines, first and last)"),
            Expr::UnaryOp(op) => self.expression(&op.expr),
            Expr::BinOp(op) => {
                match op.op {
                    BinOpKind::Concat => self.facts.joins += 1,
                    BinOpKind::Mul => return refused(line, "*"),
                    BinOpKind::Pow => return refused(line, "**"),
                    BinOpKind::Add => return refused(line, "+ (join texts with ~)"),
                    // With what stands in the template, no more than that is compared.
                    BinOpKind::Eq | BinOpKind::Ne | BinOpKind::Lt | BinOpKind::Lte | BinOpKind::Gt | BinOpKind::Gte
                        if is_constant(&op.left) || is_constant(&op.right) => {}
                    BinOpKind::Eq | BinOpKind::Ne | BinOpKind::Lt | BinOpKind::Lte | BinOpKind::Gt | BinOpKind::Gte => {
                        self.compares();
                    }
                    // Looked for in a text, an object is written as one first.
                    BinOpKind::In if !matches!(&op.right, Expr::List(_)) || !is_constant(&op.right) => self.compares(),
                    _ => {}
                }
                self.expression(&op.left)?;
                self.expression(&op.right)
            }
            Expr::Compare(compare) => {
                self.compares();
                self.expression(&compare.expr)?;
                compare.ops.iter().try_for_each(|op| self.expression(&op.expr))
            }
            Expr::IfExpr(cond) => {
                self.expression(&cond.test_expr)?;
                self.expression(&cond.true_expr)?;
                cond.false_expr.iter().try_for_each(|other| self.expression(other))
            }
            Expr::Filter(filter) => self.filter(filter, line),
            Expr::Test(test) => {
                if !TESTS.contains(&test.name) {
                    return Err(format!(
                        "line {line}: there is no test {:?}; there are {}",
                        test.name,
                        TESTS.join(", ")
                    ));
                }
                // Asked whether it is there, it need not be.
                if self.place(&test.expr).is_none() { self.expression(&test.expr) } else { Ok(()) }
            }
            Expr::GetAttr(get) => self.expression(&get.expr),
            Expr::GetItem(get) => {
                if is_far(&get.subscript_expr) {
                    self.compares();
                }
                self.expression(&get.expr)?;
                self.expression(&get.subscript_expr)
            }
            Expr::Call(_) => refused(line, "a call (there are no functions and no methods, only filters)"),
            Expr::List(list) => list.items.iter().try_for_each(|item| self.expression(item)),
            Expr::Tuple(_) => refused(line, "a tuple"),
            Expr::Map(_) => refused(line, "a map"),
        }
    }

    /// A place that the expression names, and what it takes to get there.
    fn place(&mut self, expression: &Expr<'_>) -> Option<Path> {
        let found = path(expression)?;
        let mut here = expression;
        loop {
            match here {
                Expr::GetAttr(get) => here = &get.expr,
                Expr::GetItem(get) => {
                    if is_far(&get.subscript_expr) {
                        self.compares();
                    }
                    here = &get.expr;
                }
                _ => return Some(found),
            }
        }
    }

    fn compares(&mut self) {
        let times = if self.depth > 0 { usize::MAX } else { 1 };
        self.facts.comparisons = self.facts.comparisons.saturating_add(times);
    }

    fn filter(&mut self, filter: &minijinja::machinery::ast::Filter<'_>, line: u16) -> Result<(), String> {
        if !filters::NAMES.contains(&filter.name) {
            let names = filters::NAMES.join(", ");
            return Err(format!("line {line}: there is no filter {:?}; there are {names}", filter.name));
        }
        if filter.name == "htpasswd" {
            self.facts.htpasswds += 1;
            if self.depth > 0 {
                return refused(line, "htpasswd in a loop");
            }
            if self.facts.htpasswds > MAX_HTPASSWD {
                return Err(format!("line {line}: htpasswd may stand at most {MAX_HTPASSWD} times in a template"));
            }
        }
        if let Some(of) = &filter.expr
            && !(matches!(filter.name, "default" | "d") && self.place(of).is_some())
        {
            self.expression(of)?;
        }
        filter.args.iter().try_for_each(|argument| match argument {
            CallArg::Pos(value) => self.expression(value),
            CallArg::Kwarg(..) | CallArg::PosSplat(_) | CallArg::KwargSplat(_) => {
                refused(line, "an argument with a name or a star")
            }
        })
    }
}

fn is_constant(expression: &Expr<'_>) -> bool {
    match expression {
        Expr::Const(_) => true,
        Expr::List(list) => list.items.iter().all(is_constant),
        _ => false,
    }
}

/// Whether it may take long to find: names of the payload may be long, and so may the text whose nth character is asked for.
fn is_far(subscript: &Expr<'_>) -> bool {
    match subscript {
        Expr::Const(key) => key.value.as_str().is_none() && key.value.as_usize().is_none_or(|n| n > NEAR),
        _ => true,
    }
}

fn name(expression: &Expr<'_>) -> Option<String> {
    match expression {
        Expr::Var(var) => Some(var.id.to_owned()),
        _ => None,
    }
}

/// A chain of constant names from a variable.
fn path(expression: &Expr<'_>) -> Option<Path> {
    match expression {
        Expr::Var(var) => Some(Path(vec![var.id.to_owned()])),
        Expr::GetAttr(get) => {
            let mut names = path(&get.expr)?;
            names.0.push(get.name.to_owned());
            Some(names)
        }
        Expr::GetItem(get) => {
            let mut names = path(&get.expr)?;
            match &get.subscript_expr {
                Expr::Const(key) => names.0.push(key.value.to_string()),
                _ => return None,
            }
            Some(names)
        }
        _ => None,
    }
}

/// Whether a loop over it walks what the payload holds, and nothing that was built.
fn walkable(expression: &Expr<'_>) -> bool {
    match expression {
        Expr::Filter(filter) => WALKED.contains(&filter.name) && filter.expr.as_ref().is_some_and(walkable),
        Expr::GetItem(get) => walkable(&get.expr),
        Expr::GetAttr(get) => walkable(&get.expr),
        Expr::Var(_) => true,
        _ => false,
    }
}
