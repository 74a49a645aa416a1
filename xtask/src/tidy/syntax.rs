//! Rules about Rust that need its syntax: the length of functions, unsafe code, silenced lints.

use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Block, Ident, ImplItemFn, ItemFn, Meta, Signature, TraitItemFn};

use super::Finding;

/// The longest function, from `fn` to its closing brace, in lines: what fits a screen.
const FUNCTION_LINES_MAX: usize = 70;

/// Lints that nobody may silence: code that nobody uses is removed.
const NEVER_SILENCED: &[&str] = &["dead_code", "unused"];

pub(super) fn check(file: &str, text: &str, tree: &syn::File, out: &mut Vec<Finding>) {
    Rules { file, out }.visit_file(tree);
    // Tokens rather than the tree: unsafe code inside the arguments of macros counts as well.
    if let Ok(tokens) = text.parse::<TokenStream>() {
        let lines: Vec<&str> = text.lines().collect();
        check_unsafe(file, &lines, tokens, out);
    }
}

struct Rules<'a> {
    file: &'a str,
    out: &'a mut Vec<Finding>,
}

impl Rules<'_> {
    fn check_function(&mut self, signature: &Signature, body: &Block) {
        let first = signature.fn_token.span.start().line;
        let lines = body.span().end().line - first + 1;
        if lines > FUNCTION_LINES_MAX {
            let name = &signature.ident;
            let what = format!("`{name}` has {lines} lines, the most is {FUNCTION_LINES_MAX}");
            let mend = "take out a part that can be named";
            self.out.push(Finding::new(self.file, first, what, mend));
        }
    }
}

impl<'ast> Visit<'ast> for Rules<'_> {
    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        self.check_function(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        self.check_function(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast TraitItemFn) {
        if let Some(body) = &item.default {
            self.check_function(&item.sig, body);
        }
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        let line = attribute.span().start().line;
        for name in silenced_lints(attribute) {
            if NEVER_SILENCED.iter().any(|lint| name == *lint || name.starts_with("unused_")) {
                let what = format!("silences the lint `{name}`");
                let mend = "remove what is not used";
                self.out.push(Finding::new(self.file, line, what, mend));
            }
        }
        if attribute.path().is_ident("ignore") {
            let mend = "make it run, or remove it";
            self.out.push(Finding::new(self.file, line, "a test that is ignored", mend));
        }
    }
}

/// The lints that an attribute allows or expects, also where `cfg_attr` wraps it.
fn silenced_lints(attribute: &Attribute) -> Vec<String> {
    let Meta::List(list) = &attribute.meta else { return Vec::new() };
    let mut names = Vec::new();
    if list.path.is_ident("allow") || list.path.is_ident("expect") {
        collect_idents(list.tokens.clone(), &mut names);
    } else if list.path.is_ident("cfg_attr") {
        let mut silences = false;
        for token in list.tokens.clone() {
            match token {
                TokenTree::Ident(ident) => silences = ident == "allow" || ident == "expect",
                TokenTree::Group(group) if silences => collect_idents(group.stream(), &mut names),
                _ => silences = false,
            }
        }
    }
    names.iter().map(Ident::to_string).collect()
}

fn collect_idents(tokens: TokenStream, names: &mut Vec<Ident>) {
    for token in tokens {
        match token {
            TokenTree::Ident(ident) => names.push(ident),
            TokenTree::Group(group) => collect_idents(group.stream(), names),
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
}

/// Finds `unsafe {` and `unsafe impl` that no SAFETY comment justifies.
fn check_unsafe(file: &str, lines: &[&str], tokens: TokenStream, out: &mut Vec<Finding>) {
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Ident(ident) if ident == "unsafe" => {
                let claims = match tokens.peek() {
                    Some(TokenTree::Group(_)) => true,
                    Some(TokenTree::Ident(next)) => next == "impl",
                    _ => false,
                };
                let line = ident.span().start().line;
                if claims && !is_justified(lines, line) {
                    let what = "unsafe code without a SAFETY comment directly above";
                    let mend = "say why it is sound, starting with `// SAFETY:`";
                    out.push(Finding::new(file, line, what, mend));
                }
            }
            TokenTree::Group(group) => check_unsafe(file, lines, group.stream(), out),
            _ => {}
        }
    }
}

/// Whether a SAFETY comment stands above the statement that holds the token on `line` (from 1).
fn is_justified(lines: &[&str], line: usize) -> bool {
    let mut comments_only = false;
    for above in lines[..line - 1].iter().rev().map(|line| line.trim()) {
        if above.starts_with("//") {
            if above.contains("SAFETY:") {
                return true;
            }
            comments_only = true;
        } else if above.starts_with("#[") {
            continue;
        } else if comments_only || above.is_empty() || above.ends_with([';', '{', '}', ',']) {
            // Another statement, or the one around us, ends here.
            return false;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::super::{assert_caught, said};
    use super::*;

    fn assert_clean(text: &str) {
        assert_eq!(said("a.rs", text), Vec::<String>::new());
    }

    #[test]
    fn long_functions_are_caught_wherever_they_stand() {
        let body = "    a();\n".repeat(FUNCTION_LINES_MAX - 1);
        assert_caught("a.rs", &format!("\nfn long() {{\n{body}}}\n"), 2, "`long` has 71 lines");
        assert_caught("a.rs", &format!("impl A {{\nfn l() {{\n{body}}}\n}}\n"), 2, "`l` has 71");
        assert_caught("a.rs", &format!("trait A {{\nfn t() {{\n{body}}}\n}}\n"), 2, "`t` has 71");
        let body = "    a();\n".repeat(FUNCTION_LINES_MAX - 2);
        assert_clean(&format!("/// Words do not count.\nfn fits() {{\n{body}}}\n"));
    }

    #[test]
    fn unsafe_without_a_reason_is_caught() {
        let what = "SAFETY";
        assert_caught("a.rs", "fn a() {\n    unsafe { b() }\n}\n", 2, what);
        assert_caught("a.rs", "struct A;\nunsafe impl Send for A {}\n", 2, what);
        assert_caught("a.rs", "fn a() {\n    assert!(unsafe { b() });\n}\n", 2, what);
        let stale = "fn a() {\n    // SAFETY: it is.\n    b();\n    unsafe { c() }\n}\n";
        assert_caught("a.rs", stale, 4, what);
    }

    #[test]
    fn unsafe_with_a_reason_passes() {
        assert_clean(
            "fn a() {\n    // SAFETY: b asks for nothing,\n    // really.\n    unsafe { b() }\n}\n",
        );
        assert_clean("fn a() {\n    // SAFETY: b.\n    let x =\n        unsafe { b() };\n}\n");
        assert_clean("// SAFETY: A is a number.\n#[cfg(test)]\nunsafe impl Send for A {}\n");
        assert_clean("unsafe fn a() {}\n");
    }

    #[test]
    fn silenced_lints_are_caught() {
        assert_caught("a.rs", "#[allow(dead_code)]\nfn a() {}\n", 1, "`dead_code`");
        assert_caught("a.rs", "\n#[expect(unused_variables)]\nfn a() {}\n", 2, "unused_variables");
        assert_caught("a.rs", "#![cfg_attr(test, allow(b, unused))]\n", 1, "`unused`");
        assert_clean("#[allow(clippy::too_many_arguments)]\nfn a() {}\n");
    }

    #[test]
    fn ignored_tests_are_caught() {
        assert_caught("a.rs", "#[test]\n#[ignore]\nfn a() {}\n", 2, "ignored");
        assert_caught("a.rs", "#[test]\n#[ignore = \"slow\"]\nfn a() {}\n", 2, "ignored");
    }
}
