//! The configuration that needs nothing installed and no file.

use std::path::Path;

/// The built-in configuration, written as a file would be, with its disk and socket in `state_dir`.
pub(super) fn text(state_dir: &Path) -> String {
    // A folder whose name is no text is shown as well as can be, and will be told as not found.
    let disk = quoted(&state_dir.join("main.img").to_string_lossy());
    let listen = quoted(&format!("unix:{}", state_dir.join("nbd.sock").to_string_lossy()));
    let control = quoted(&state_dir.join("control.sock").to_string_lossy());
    format!(
        r#"# What `blkmq serve` does without a file. Every key has a default.

[disk.main]
driver = "file"
path = {disk}
size = "1G"                     # created if missing, sparse
scheduler = "mq-deadline"

[volume.gold]
disk = "main"
offset = "0"
size = "512M"
weight = 800

[volume.bronze]
disk = "main"
offset = "512M"
size = "512M"
weight = 100

[export.nbd]
default = "gold"
listen = [{listen}]

[control]
socket = {control}
"#
    )
}

/// A text as TOML writes it.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}
