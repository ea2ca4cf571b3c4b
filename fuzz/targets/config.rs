//! Configuration: any file is taken, or every mistake in it is named with its key; none ends in a panic.

use std::io::Write;
use std::path::Path;

use causeway::config::Config;

/// A configuration in TOML; one that begins with a brace is an AgentOS peers file.
pub(crate) fn run(data: &[u8]) {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(data).expect("written");
    let path = file.path().to_str().expect("a path in text");
    let loaded = if data.starts_with(b"{") {
        Config::load(None, [("CAUSEWAY_GATEWAY_PEERS_FILE".to_owned(), path.to_owned())])
    } else {
        Config::load(Some(Path::new(path)), [])
    };
    if let Err(errors) = loaded {
        let text = errors.to_string();
        assert!(text.lines().count() >= 1 && text.len() < 64 * 1024 + 64 * data.len(), "{text}");
    }
}
