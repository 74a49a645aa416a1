//! The architecture's invariants about the layer: no I/O, no threads, no clock, and one door to
//! atomics and locks. `crates/core` holds the layer; `crates/models` has none of these at all.

use proc_macro2::{Ident, TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemUse, Macro, Path, UseTree};

use super::Finding;

const LAYER: &str = "crates/core/src/";
const MODELS: &str = "crates/models/src/";

/// Paths the layer never names. `core::` counts as `std::`.
const NEVER: &[(&str, &str)] = &[
    ("std::time::Instant", "take the time as an argument"),
    ("std::time::SystemTime", "take the time as an argument"),
    ("std::thread", "threads belong to the runtime"),
    ("std::fs", "I/O belongs to the drivers"),
    ("std::net", "I/O belongs to the exports"),
    ("std::io", "I/O belongs to the drivers"),
    ("std::os", "the operating system belongs to the runtime and the drivers"),
    ("std::process", "processes belong to the programs"),
    ("std::env", "settings come in as arguments"),
];

/// Paths that only `sync.rs` names: each flavour has its own.
const ONLY_SYNC: &[&str] = &[
    "std::sync::atomic",
    "std::sync::Barrier",
    "std::sync::Condvar",
    "std::sync::LazyLock",
    "std::sync::Mutex",
    "std::sync::Once",
    "std::sync::OnceLock",
    "std::sync::RwLock",
    "std::sync::mpsc",
    "crossbeam_utils::atomic",
    "crossbeam_utils::sync",
    "loom",
    "shuttle",
];

/// Macros that write to the terminal.
const PRINTING: &[&str] = &["print", "println", "eprint", "eprintln", "dbg"];

pub(super) fn check(file: &str, tree: &syn::File, out: &mut Vec<Finding>) {
    let room = file.strip_prefix(LAYER).or_else(|| file.strip_prefix(MODELS));
    let Some(room) = room else { return };
    if room == "tests.rs" || room.ends_with("/tests.rs") || room.contains("tests/") {
        return;
    }
    let is_sync = file.starts_with(LAYER) && (room == "sync.rs" || room.starts_with("sync/"));
    Rules { file, is_sync, out }.visit_file(tree);
}

struct Rules<'a> {
    file: &'a str,
    is_sync: bool,
    out: &'a mut Vec<Finding>,
}

impl Rules<'_> {
    fn check_path(&mut self, path: &str, line: usize) {
        let path = match path.strip_prefix("core::") {
            Some(rest) => format!("std::{rest}"),
            None => path.to_owned(),
        };
        if self.is_sync && path == "std::thread::panicking" {
            // To ask whether this thread is unwinding starts nothing and waits for nothing.
            return;
        }
        let within = |of: &str| {
            path.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        for (never, mend) in NEVER {
            if within(never) {
                let what = format!("the layer names `{never}`");
                self.out.push(Finding::new(self.file, line, what, mend));
            }
        }
        for only in ONLY_SYNC {
            if within(only) && !self.is_sync {
                let what = format!("`{only}` outside sync.rs");
                let mend = "use crate::sync, so that every flavour has its own";
                self.out.push(Finding::new(self.file, line, what, mend));
            }
        }
    }

    fn check_use(&mut self, prefix: &str, tree: &UseTree) {
        let joined = |name: &Ident| match prefix {
            "" => name.to_string(),
            _ => format!("{prefix}::{name}"),
        };
        match tree {
            UseTree::Path(path) => self.check_use(&joined(&path.ident), &path.tree),
            UseTree::Name(name) => self.check_path(&joined(&name.ident), line_of(&name.ident)),
            UseTree::Rename(name) => self.check_path(&joined(&name.ident), line_of(&name.ident)),
            UseTree::Glob(glob) => self.check_path(prefix, glob.star_token.spans[0].start().line),
            UseTree::Group(group) => {
                for tree in &group.items {
                    // `use std::fs::{self}` names the folder itself.
                    match tree {
                        UseTree::Name(name) if name.ident == "self" => {
                            self.check_path(prefix, line_of(&name.ident));
                        }
                        _ => self.check_use(prefix, tree),
                    }
                }
            }
        }
    }

    /// The arguments of a macro are no tree: its paths are found among the tokens.
    fn check_tokens(&mut self, tokens: TokenStream) {
        let mut path = String::new();
        let (mut line, mut colons) = (0, 0);
        for token in tokens {
            match token {
                TokenTree::Ident(ident) if colons == 2 && !path.is_empty() => {
                    path.push_str("::");
                    path.push_str(&ident.to_string());
                    colons = 0;
                }
                TokenTree::Ident(ident) => {
                    self.check_path(&path, line);
                    (path, line, colons) = (ident.to_string(), line_of(&ident), 0);
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                other => {
                    self.check_path(&path, line);
                    path.clear();
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.check_tokens(group.stream());
                    }
                }
            }
        }
        self.check_path(&path, line);
    }

    fn check_cfg(&mut self, line: usize) {
        if !self.is_sync {
            let mend = "move the difference between flavours into sync.rs";
            self.out.push(Finding::new(self.file, line, "a cfg outside sync.rs", mend));
        }
    }
}

impl<'ast> Visit<'ast> for Rules<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        // Tests run in one flavour only, and may have threads and clocks.
        let attributes = match item {
            Item::Mod(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            _ => return visit::visit_item(self, item),
        };
        if !attributes.iter().any(is_cfg_test) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.check_use("", &item.tree);
        visit::visit_item_use(self, item);
    }

    fn visit_path(&mut self, path: &'ast Path) {
        let names: Vec<String> = path.segments.iter().map(|part| part.ident.to_string()).collect();
        self.check_path(&names.join("::"), path.span().start().line);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        let line = call.path.span().start().line;
        let name = call.path.segments.last().map(|part| part.ident.to_string()).unwrap_or_default();
        if name == "cfg" {
            self.check_cfg(line);
        }
        if PRINTING.contains(&name.as_str()) {
            let what = format!("the layer calls `{name}!`");
            self.out.push(Finding::new(self.file, line, what, "answer an error, or trace it"));
        }
        self.check_tokens(call.tokens.clone());
        visit::visit_macro(self, call);
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        let is_cfg = attribute.path().is_ident("cfg") || attribute.path().is_ident("cfg_attr");
        if is_cfg && !is_cfg_test(attribute) {
            self.check_cfg(attribute.span().start().line);
        }
    }
}

fn is_cfg_test(attribute: &Attribute) -> bool {
    attribute.path().is_ident("cfg")
        && attribute.parse_args::<syn::Ident>().is_ok_and(|condition| condition == "test")
}

fn line_of(ident: &Ident) -> usize {
    ident.span().start().line
}

#[cfg(test)]
mod tests {
    use super::super::{assert_caught, said};
    use super::*;

    const ROOM: &str = "crates/core/src/queue.rs";

    fn assert_clean(file: &str, text: &str) {
        assert_eq!(said(file, text), Vec::<String>::new());
    }

    #[test]
    fn clocks_threads_and_io_are_caught_in_the_layer() {
        for (path, _) in NEVER {
            assert_caught(ROOM, &format!("\nuse {path};\n"), 2, path);
            assert_caught("crates/models/src/sync.rs", &format!("use {path};\n"), 1, path);
            assert_clean("crates/runtime/src/a.rs", &format!("use {path};\n"));
        }
        assert_caught(ROOM, "use std::{\n    fmt,\n    fs::File,\n};\n", 3, "std::fs");
        assert_caught(ROOM, "use std::net::{self};\n", 1, "std::net");
        assert_caught(ROOM, "fn a() { std::thread::yield_now() }\n", 1, "std::thread");
        assert_caught(ROOM, "fn a() { b!(::std::thread::yield_now()) }\n", 1, "std::thread");
        assert_caught(ROOM, "fn a() { println!(\"a\") }\n", 1, "println");
        assert_clean(ROOM, "use std::time::Duration;\nuse std::sync::Arc;\n");
    }

    #[test]
    fn sync_may_ask_whether_its_thread_unwinds() {
        let text = "fn a() -> bool { std::thread::panicking() }\n";
        assert_clean("crates/core/src/sync.rs", text);
        assert_caught(ROOM, text, 1, "std::thread");
        assert_caught("crates/core/src/sync.rs", "use std::thread::spawn;\n", 1, "std::thread");
    }

    #[test]
    fn atomics_and_locks_are_caught_outside_sync() {
        for path in ONLY_SYNC {
            assert_caught(ROOM, &format!("use {path}::Thing;\n"), 1, path);
            assert_clean("crates/core/src/sync.rs", &format!("use {path}::Thing;\n"));
            assert_clean("crates/core/src/sync/loom.rs", &format!("use {path}::Thing;\n"));
        }
        assert_caught(ROOM, "use core::sync::atomic::AtomicU32;\n", 1, "std::sync::atomic");
        assert_caught(ROOM, "struct A(std::sync::Mutex<u32>);\n", 1, "std::sync::Mutex");
        assert_clean(ROOM, "use crate::sync::Mutex;\n");
    }

    #[test]
    fn cfg_is_caught_outside_sync() {
        assert_caught(ROOM, "\n#[cfg(feature = \"loom\")]\nfn a() {}\n", 2, "cfg");
        assert_caught(ROOM, "fn a() -> bool {\n    cfg!(debug_assertions)\n}\n", 2, "cfg");
        assert_clean("crates/core/src/sync.rs", "#[cfg(feature = \"loom\")]\nfn a() {}\n");
        assert_clean(ROOM, "#[cfg(test)]\nmod tests {\n    use std::thread;\n}\n");
        assert_clean("crates/core/src/queue/tests.rs", "use std::thread;\n");
    }
}
