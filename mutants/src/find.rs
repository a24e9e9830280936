//! Where a source file can be changed, and into what.
//!
//! What is looked at: operators, conditions, guards and arms of matches, statements whose value nobody uses, and whole
//! bodies of functions. What is not: tests, constants and whatever else is computed when the program is compiled,
//! macros, patterns, types, capacities that are only hints, and `Debug`.

use std::ops::Range;

use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, BinOp, Block, Expr, Pat, ReturnType, Signature, Stmt, UnOp};

use crate::values;

/// How a mutant is woven into the text of its file.
#[derive(Clone, Debug)]
pub enum Form {
    /// This expression in place of the one at `range`.
    Instead(String),
    /// The statement at `range` is not executed.
    LeftOut,
    /// The function whose body begins at `range` returns this at once.
    Returns(String),
    /// The arm whose pattern ends at `range` never matches.
    NoArm,
}

/// One change of one file.
#[derive(Clone, Debug)]
pub struct Mutant {
    /// What is changed, in bytes of the file; empty where something is inserted.
    pub range: Range<usize>,
    /// The line, counted from 1.
    pub line: usize,
    /// The function, with its type.
    pub function: String,
    /// What is done, in words of the source.
    pub what: String,
    pub form: Form,
}

/// All mutants of a file, in the order of the visit.
pub fn mutants(text: &str) -> syn::Result<Vec<Mutant>> {
    let file = syn::parse_file(text)?;
    let mut finder = Finder { text, within: Vec::new(), in_body: false, found: Vec::new() };
    finder.visit_file(&file);
    Ok(finder.found)
}

struct Finder<'t> {
    text: &'t str,
    within: Vec<String>,
    in_body: bool,
    found: Vec<Mutant>,
}

impl Finder<'_> {
    fn source(&self, node: &impl Spanned) -> &str {
        self.text.get(node.span().byte_range()).unwrap_or_default()
    }

    fn add(&mut self, range: Range<usize>, line: usize, what: String, form: Form) {
        let what = what.split_whitespace().collect::<Vec<_>>().join(" ");
        self.found.push(Mutant { range, line, function: self.within.join("::"), what, form });
    }

    fn instead(&mut self, node: &impl Spanned, with: &str, what: String) {
        let span = node.span();
        self.add(span.byte_range(), span.start().line, what, Form::Instead(with.to_owned()));
    }

    /// A condition that always, or never, holds. Those that bind names can't be replaced.
    fn condition(&mut self, condition: &Expr, always: bool) {
        if !self.in_body || binds(condition) {
            return;
        }
        for value in ["true", "false"].into_iter().skip(usize::from(!always)) {
            self.instead(condition, value, format!("{} -> {value}", self.source(condition)));
        }
    }

    fn function(&mut self, attributes: &[Attribute], signature: &Signature, body: &Block) {
        if for_tests(attributes) || signature.constness.is_some() {
            return;
        }
        self.within.push(signature.ident.to_string());
        let whole = std::mem::replace(&mut self.in_body, true);
        if !body.stmts.is_empty() {
            let open = body.brace_token.span.open();
            let at = open.byte_range().end;
            let returned = match &signature.output {
                ReturnType::Default => vec![String::new()],
                ReturnType::Type(_, kind) => values::of(kind),
            };
            for value in returned {
                self.add(
                    at..at,
                    open.start().line,
                    format!("returns {}", if value.is_empty() { "()" } else { &value }),
                    Form::Returns(value),
                );
            }
        }
        self.visit_block(body);
        self.in_body = whole;
        self.within.pop();
    }
}

impl<'a> Visit<'a> for Finder<'_> {
    fn visit_item_mod(&mut self, item: &'a syn::ItemMod) {
        if !for_tests(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'a syn::ItemFn) {
        self.function(&item.attrs, &item.sig, &item.block);
    }

    fn visit_impl_item_fn(&mut self, item: &'a syn::ImplItemFn) {
        self.function(&item.attrs, &item.sig, &item.block);
    }

    fn visit_trait_item_fn(&mut self, item: &'a syn::TraitItemFn) {
        if let Some(body) = &item.default {
            self.function(&item.attrs, &item.sig, body);
        }
    }

    fn visit_item_impl(&mut self, item: &'a syn::ItemImpl) {
        let of = item
            .trait_
            .as_ref()
            .and_then(|(path, _)| path.segments.last())
            .map(|last| last.ident.to_string());
        if for_tests(&item.attrs) || of.as_deref() == Some("Debug") {
            return;
        }
        self.within.push(self.source(&item.self_ty).to_owned());
        visit::visit_item_impl(self, item);
        self.within.pop();
    }

    // Computed when the program is compiled, or not at all.
    fn visit_item_const(&mut self, _: &'a syn::ItemConst) {}
    fn visit_item_static(&mut self, _: &'a syn::ItemStatic) {}
    fn visit_impl_item_const(&mut self, _: &'a syn::ImplItemConst) {}
    fn visit_trait_item_const(&mut self, _: &'a syn::TraitItemConst) {}
    fn visit_item_enum(&mut self, _: &'a syn::ItemEnum) {}
    fn visit_expr_const(&mut self, _: &'a syn::ExprConst) {}
    fn visit_type(&mut self, _: &'a syn::Type) {}
    fn visit_angle_bracketed_generic_arguments(&mut self, _: &'a syn::AngleBracketedGenericArguments) {}
    fn visit_attribute(&mut self, _: &'a Attribute) {}
    fn visit_macro(&mut self, _: &'a syn::Macro) {}

    fn visit_expr_repeat(&mut self, repeat: &'a syn::ExprRepeat) {
        self.visit_expr(&repeat.expr);
    }

    /// Patterns have no expressions that could be changed, but guards.
    fn visit_pat(&mut self, pattern: &'a Pat) {
        if let Pat::Guard(guarded) = pattern {
            self.condition(&guarded.guard, true);
            self.visit_expr(&guarded.guard);
        }
    }

    fn visit_expr_call(&mut self, call: &'a syn::ExprCall) {
        if !self.source(&call.func).ends_with("with_capacity") {
            visit::visit_expr_call(self, call);
        }
    }

    fn visit_expr_method_call(&mut self, call: &'a syn::ExprMethodCall) {
        if call.method == "reserve" {
            return self.visit_expr(&call.receiver);
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_expr_binary(&mut self, binary: &'a syn::ExprBinary) {
        let names = matches!(binary.op, BinOp::And(_)) && (binds(&binary.left) || binds(&binary.right));
        if self.in_body && !names && binary.attrs.is_empty() {
            let (left, right) = (self.source(&binary.left).to_owned(), self.source(&binary.right).to_owned());
            let operator = self.source(&binary.op).to_owned();
            for other in others(&binary.op) {
                // An assignment wants a place on its left, and places are not put into brackets.
                let with = match other.strip_suffix('=') {
                    Some(_) if operator.ends_with('=') && !is_comparison(&binary.op) => {
                        format!("{left} {other} ({right})")
                    }
                    _ => format!("({left}) {other} ({right})"),
                };
                self.instead(binary, &with, format!("{left} {operator} {right} -> {other}"));
            }
        }
        visit::visit_expr_binary(self, binary);
    }

    fn visit_expr_unary(&mut self, unary: &'a syn::ExprUnary) {
        if self.in_body && matches!(unary.op, UnOp::Not(_) | UnOp::Neg(_)) {
            let operand = format!("({})", self.source(&unary.expr));
            let what = format!("{} -> {operand}", self.source(unary));
            self.instead(unary, &operand, what);
        }
        visit::visit_expr_unary(self, unary);
    }

    fn visit_expr_if(&mut self, branch: &'a syn::ExprIf) {
        self.condition(&branch.cond, true);
        visit::visit_expr_if(self, branch);
    }

    /// One that goes round for ever says nothing about the tests.
    fn visit_expr_while(&mut self, repeated: &'a syn::ExprWhile) {
        self.condition(&repeated.cond, false);
        visit::visit_expr_while(self, repeated);
    }

    fn visit_expr_match(&mut self, branches: &'a syn::ExprMatch) {
        let rest = branches.arms.iter().rposition(|arm| matches!(arm.pat, Pat::Wild(_)) || is_name(&arm.pat));
        for arm in branches.arms.iter().take(rest.unwrap_or(0)) {
            if self.in_body && !matches!(arm.pat, Pat::Guard(_)) {
                let span = arm.pat.span();
                let at = span.byte_range().end;
                self.add(
                    at..at,
                    span.start().line,
                    format!("without the arm {}", self.source(&arm.pat)),
                    Form::NoArm,
                );
            }
        }
        visit::visit_expr_match(self, branches);
    }

    fn visit_stmt(&mut self, statement: &'a Stmt) {
        if let Stmt::Expr(expression, Some(_)) = statement
            && self.in_body
            && is_deed(expression)
        {
            let span = statement.span();
            self.add(
                span.byte_range(),
                span.start().line,
                format!("without {}", self.source(statement)),
                Form::LeftOut,
            );
        }
        visit::visit_stmt(self, statement);
    }
}

fn for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::List(list) if list.path.is_ident("cfg") => list.tokens.to_string() == "test",
        syn::Meta::Path(path) => path.is_ident("test"),
        _ => false,
    })
}

/// Is there a `let` in it, whose names are used behind it?
fn binds(condition: &Expr) -> bool {
    match condition {
        Expr::Let(_) => true,
        Expr::Binary(binary) if matches!(binary.op, BinOp::And(_)) => {
            binds(&binary.left) || binds(&binary.right)
        }
        _ => false,
    }
}

/// A pattern that matches whatever there is, and names it. (Constants are in capitals.)
fn is_name(pattern: &Pat) -> bool {
    matches!(pattern, Pat::Ident(name)
        if name.subpat.is_none() && name.ident.to_string().starts_with(|first: char| first.is_lowercase()))
}

/// A statement that only does something: without it, everything behind it still has its types.
fn is_deed(expression: &Expr) -> bool {
    match expression {
        Expr::MethodCall(call) => call.method != "reserve",
        Expr::Call(_) | Expr::Assign(_) => true,
        Expr::Try(tried) => is_deed(&tried.expr),
        Expr::Binary(binary) => is_assignment(&binary.op),
        _ => false,
    }
}

fn is_comparison(operator: &BinOp) -> bool {
    matches!(
        operator,
        BinOp::Eq(_) | BinOp::Ne(_) | BinOp::Lt(_) | BinOp::Le(_) | BinOp::Gt(_) | BinOp::Ge(_)
    )
}

fn is_assignment(operator: &BinOp) -> bool {
    !others(operator).is_empty()
        && others(operator).iter().all(|other| other.ends_with('='))
        && !is_comparison(operator)
}

/// What stands in place of an operator.
fn others(operator: &BinOp) -> &'static [&'static str] {
    match operator {
        BinOp::Eq(_) => &["!="],
        BinOp::Ne(_) => &["=="],
        BinOp::Lt(_) => &["<=", ">="],
        BinOp::Le(_) => &["<", ">"],
        BinOp::Gt(_) => &[">=", "<="],
        BinOp::Ge(_) => &[">", "<"],
        BinOp::And(_) => &["||"],
        BinOp::Or(_) => &["&&"],
        BinOp::Add(_) => &["-", "*"],
        BinOp::Sub(_) => &["+", "/"],
        BinOp::Mul(_) => &["+", "/"],
        BinOp::Div(_) => &["*", "%"],
        BinOp::Rem(_) => &["/", "+"],
        BinOp::BitAnd(_) => &["|", "^"],
        BinOp::BitOr(_) => &["&", "^"],
        BinOp::BitXor(_) => &["&", "|"],
        BinOp::Shl(_) => &[">>"],
        BinOp::Shr(_) => &["<<"],
        BinOp::AddAssign(_) => &["-=", "*="],
        BinOp::SubAssign(_) => &["+=", "/="],
        BinOp::MulAssign(_) => &["+=", "/="],
        BinOp::BitAndAssign(_) => &["|=", "^="],
        BinOp::BitOrAssign(_) => &["&=", "^="],
        BinOp::BitXorAssign(_) => &["&=", "|="],
        BinOp::ShlAssign(_) => &[">>="],
        BinOp::ShrAssign(_) => &["<<="],
        _ => &[],
    }
}
