//! Rules about packages: who may depend on whom, and that all share the workspace's lints.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use toml::{Table, Value};

use super::Finding;

/// Every package of the workspace, and the packages of ours that it may depend on: the drawing of
/// the house. What only tests use (`dev-dependencies`) is free.
const DRAWING: &[(&str, Allowed)] = &[
    ("blkmq-core", Allowed::These(&[])),
    ("blkmq-core-loom", Allowed::These(&[])),
    ("blkmq-core-shuttle", Allowed::These(&[])),
    ("blkmq-fuzz", Allowed::These(&[])),
    ("blkmq-models", Allowed::These(&[])),
    (
        "blkmq-lab",
        Allowed::These(&["blkmq-core", "blkmq-core-loom", "blkmq-core-shuttle", "blkmq-models"]),
    ),
    ("blkmq-drivers", Allowed::These(&["blkmq-core", "blkmq-models"])),
    ("blkmq-runtime", Allowed::These(&["blkmq-core", "blkmq-drivers"])),
    ("blkmq-exports", Allowed::These(&["blkmq-core", "blkmq-runtime"])),
    ("blkmq-cli", Allowed::All),
    ("blkmq", Allowed::These(&["blkmq-core", "blkmq-drivers", "blkmq-runtime"])),
    ("xtask", Allowed::These(&[])),
];

enum Allowed {
    All,
    These(&'static [&'static str]),
}

/// Packages of others that bring I/O, threads or a clock: the layer and the models have none.
const NOT_IN_THE_LAYER: &[&str] = &["io-uring", "libc", "mio", "nix", "rustix", "tokio", "tracing"];
const LAYER: &[&str] = &["blkmq-core", "blkmq-core-loom", "blkmq-core-shuttle", "blkmq-models"];

pub(super) fn check(root: &Path, files: &[String], out: &mut Vec<Finding>) -> Result<()> {
    let manifests = files.iter().filter(|file| file.ends_with("/Cargo.toml"));
    for file in manifests {
        let text = fs::read_to_string(root.join(file)).with_context(|| file.clone())?;
        check_manifest(file, &text, out);
    }
    Ok(())
}

fn check_manifest(file: &str, text: &str, out: &mut Vec<Finding>) {
    let manifest: Table = match text.parse() {
        Ok(manifest) => manifest,
        Err(error) => {
            out.push(Finding::new(file, 1, format!("does not parse: {error}"), "fix it"));
            return;
        }
    };
    let inherits = manifest.get("lints").and_then(|lints| lints.get("workspace"));
    if inherits != Some(&Value::Boolean(true)) {
        let mend = "add `[lints]` with `workspace = true`";
        out.push(Finding::new(file, 1, "does not use the workspace's lints", mend));
    }
    let package = manifest.get("package").and_then(|package| package.get("name"));
    let package = package.and_then(Value::as_str).unwrap_or_default();
    let Some((_, allowed)) = DRAWING.iter().find(|(name, _)| *name == package) else {
        let what = format!("the package `{package}` is not in the drawing");
        out.push(Finding::new(file, 1, what, "place it in xtask/src/tidy/packages.rs"));
        return;
    };
    for name in dependencies(&manifest) {
        let ours = DRAWING.iter().any(|(package, _)| *package == name);
        let known = match allowed {
            Allowed::All => true,
            Allowed::These(names) => names.contains(&name.as_str()),
        };
        let line = line_of(text, &name);
        if ours && !known {
            let what = format!("`{package}` depends on `{name}`");
            let mend = "the drawing in ARCHITECTURE.md has no such line: move the code";
            out.push(Finding::new(file, line, what, mend));
        }
        if LAYER.contains(&package) && NOT_IN_THE_LAYER.contains(&name.as_str()) {
            let what = format!("`{package}` depends on `{name}`");
            let mend = "the layer does no I/O, starts no thread, reads no clock";
            out.push(Finding::new(file, line, what, mend));
        }
    }
}

/// The names of all that a package is built from, for every target.
fn dependencies(manifest: &Table) -> Vec<String> {
    let targets = manifest.get("target").and_then(Value::as_table);
    let targets = targets.into_iter().flat_map(Table::values).filter_map(Value::as_table);
    let mut names = Vec::new();
    for table in std::iter::once(manifest).chain(targets) {
        for kind in ["dependencies", "build-dependencies"] {
            let entries = table.get(kind).and_then(Value::as_table).into_iter().flatten();
            for (key, entry) in entries {
                // `other = { package = "name" }` gives the package another name here.
                let renamed = entry.get("package").and_then(Value::as_str);
                names.push(renamed.unwrap_or(key).to_owned());
            }
        }
    }
    names
}

fn line_of(text: &str, name: &str) -> usize {
    let position = text.lines().position(|line| {
        let line = line.trim_start();
        line.starts_with(name) && !line[name.len()..].starts_with(|c: char| c.is_alphanumeric())
            || line.contains(&format!("\"{name}\"")) && line.contains("package")
    });
    position.map_or(1, |index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(manifest: &str) -> Vec<String> {
        let mut out = Vec::new();
        check_manifest("crates/a/Cargo.toml", manifest, &mut out);
        out.iter().map(|finding| format!("{}: {}", finding.line, finding.what)).collect()
    }

    fn manifest(package: &str, dependencies: &str) -> String {
        let lints = "[lints]\nworkspace = true\n";
        format!("[package]\nname = \"{package}\"\n{lints}[dependencies]\n{dependencies}")
    }

    #[test]
    fn dependencies_against_the_drawing_are_caught() {
        let upward = [
            ("blkmq-core", "blkmq-runtime"),
            ("blkmq-lab", "blkmq-runtime"),
            ("blkmq-drivers", "blkmq-runtime"),
            ("blkmq-runtime", "blkmq-exports"),
            ("blkmq-exports", "blkmq-drivers"),
            ("blkmq-exports", "blkmq-cli"),
            ("xtask", "blkmq-core"),
        ];
        for (package, other) in upward {
            let said = said(&manifest(package, &format!("{other}.workspace = true\n")));
            assert_eq!(said, [format!("6: `{package}` depends on `{other}`")]);
        }
        let renamed = manifest("blkmq-core", "a = { package = \"blkmq-runtime\", path = \"b\" }\n");
        assert_eq!(said(&renamed), ["6: `blkmq-core` depends on `blkmq-runtime`"]);
        let below = "[target.'cfg(unix)'.dependencies]\nblkmq-runtime.workspace = true\n";
        assert_eq!(said(&manifest("blkmq-core", below)).len(), 1);
    }

    #[test]
    fn dependencies_along_the_drawing_pass() {
        for (package, allowed) in DRAWING {
            let Allowed::These(names) = allowed else { continue };
            for name in *names {
                let said = said(&manifest(package, &format!("{name}.workspace = true\n")));
                assert_eq!(said, Vec::<String>::new());
            }
        }
        let tests = "[dev-dependencies]\nblkmq-runtime.workspace = true\n";
        assert_eq!(said(&manifest("blkmq-core", tests)), Vec::<String>::new());
    }

    #[test]
    fn io_in_the_layer_is_caught() {
        for name in NOT_IN_THE_LAYER {
            let said = said(&manifest("blkmq-core", &format!("{name} = \"1\"\n")));
            assert_eq!(said, [format!("6: `blkmq-core` depends on `{name}`")]);
        }
    }

    #[test]
    fn strangers_and_lints_of_ones_own_are_caught() {
        assert_eq!(
            said(&manifest("blkmq-other", ""))[0],
            "1: the package `blkmq-other` is not in the drawing"
        );
        let bare = "[package]\nname = \"blkmq-core\"\n";
        assert_eq!(said(bare), ["1: does not use the workspace's lints"]);
    }
}
