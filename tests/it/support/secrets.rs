//! No gateway under test writes a secret anywhere: what is secret is learnt where it appears (answers that mint
//! it, requests that carry it, key files, configurations), and when a gateway goes, all it has written is
//! searched: the log of this process, whatever was read of it (`ears`), metrics, every file of its directory.
//!
//! Invariant: [`Watch`] is a part of every gateway that the support starts, so no test can leave the search out.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use aho_corasick::AhoCorasick;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use causeway::config::Config;
use causeway::domain::api_token::ApiToken;
use causeway::keyring::KEY_DIR;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber, span};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::{Context, SubscriberExt};

/// What is shorter could stand anywhere by chance, so no test may use it as a credential.
const SHORTEST: usize = 12;
/// So much of either end of a secret betrays it.
const ENOUGH: usize = 20;
/// What minted credentials begin with, and how long they are at least.
const MINTED: [&str; 2] = ["cw_", "cwt_"];
const SHORTEST_MINTED: usize = 24;
/// Where the secret part of a token stands.
const TOKEN_SECRET: std::ops::Range<usize> = 16..59;
/// Names of query parameters that carry a credential, rightly or wrongly.
const IN_QUERY: [&str; 4] = ["ticket", "token", "access_token", "api_key"];

/// Where examples of credentials are published.
const DOCUMENT: &str = include_str!("../../../openapi/causeway.v1.yaml");

/// All that is known to this process.
#[derive(Default)]
struct Ledger {
    secrets: HashSet<Vec<u8>>,
    /// Log and metrics.
    written: String,
    /// What callers read.
    read: String,
    /// How many search.
    watches: usize,
}

static LEDGER: Mutex<Option<Ledger>> = Mutex::new(None);

fn with_ledger<T>(act: impl FnOnce(&mut Ledger) -> T) -> T {
    let mut guard: MutexGuard<'_, Option<Ledger>> = LEDGER.lock().unwrap_or_else(PoisonError::into_inner);
    act(guard.get_or_insert_with(Ledger::default))
}

/// Keeps a credential in mind.
#[track_caller]
pub(crate) fn keep(credential: &str) {
    let secret = secret_part(credential).as_bytes();
    keep_bytes(secret);
}

/// Keeps bytes in mind that nobody may see.
#[track_caller]
pub(crate) fn keep_bytes(secret: &[u8]) {
    if secret.is_empty() {
        return;
    }
    let shown = secret.escape_ascii();
    assert!(
        secret.len() >= SHORTEST,
        "`{shown}` is too short to be looked for: use {SHORTEST} bytes or more"
    );
    with_ledger(|ledger| ledger.secrets.insert(secret.to_vec()));
}

/// True when this credential is looked for.
pub(crate) fn is_known(credential: &str) -> bool {
    with_ledger(|ledger| ledger.secrets.contains(secret_part(credential).as_bytes()))
}

/// The part of a credential that makes it one; the rest may be public.
fn secret_part(credential: &str) -> &str {
    if credential.starts_with(MINTED[0]) && credential.len() >= TOKEN_SECRET.end {
        return credential.get(TOKEN_SECRET).unwrap_or(credential);
    }
    match credential.rsplit_once('.') {
        Some((claims, signature)) if claims.starts_with("eyJ") => signature,
        _ => credential,
    }
}

/// Keeps what a request carries in its headers.
#[track_caller]
pub(crate) fn carried(name: &str, value: &str) {
    if ["authorization", "x-api-key"].contains(&name) {
        keep(value.rsplit(' ').next().unwrap_or(value));
    }
}

/// Keeps the credentials in a target's query.
pub(crate) fn asked(target: &str) {
    for pair in target.split_once('?').map_or("", |(_, query)| query).split('&') {
        match pair.split_once('=') {
            Some((name, value)) if IN_QUERY.contains(&name) => keep(value),
            _ => {}
        }
    }
}

/// Every word of this text that looks like a minted credential. What such a word begins with may stand within one,
/// too: chance makes secrets.
fn minted(text: &str) -> HashSet<&str> {
    let is_of_word = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    let word = |at: usize| {
        let rest = &text[at..];
        &rest[..rest.find(|c| !is_of_word(c)).unwrap_or(rest.len())]
    };
    let found = MINTED.iter().flat_map(|prefix| text.match_indices(prefix));
    let whole = found.map(|(at, _)| at).filter(|at| !text[..*at].ends_with(is_of_word));
    let words = whole.map(word).filter(|word| word.len() >= SHORTEST_MINTED);
    words.filter(|word| !DOCUMENT.contains(word)).collect()
}

/// Takes what a caller reads. A credential that nobody knew is minted here, and may be shown this once.
pub(crate) fn read(text: &str) {
    let mut shown = text.to_owned();
    for word in minted(text).into_iter().filter(|word| !is_known(word)) {
        keep(word);
        shown = shown.replace(word, "(minted)");
    }
    with_ledger(|ledger| {
        if ledger.watches > 0 {
            ledger.read.push_str(&shown);
        }
    });
}

/// Takes what is written: a line of the log, a page of metrics.
pub(crate) fn say(text: &str) {
    with_ledger(|ledger| {
        if ledger.watches > 0 {
            ledger.written.push_str(text);
        }
    });
}

/// Keeps a private key, in each of the forms it has.
fn keep_key(pem: &str) {
    for block in pem.split("-----BEGIN ").filter(|block| block.contains("PRIVATE KEY")) {
        let lines = block.lines().skip(1).take_while(|line| !line.starts_with('-'));
        let body: String = lines.map(str::trim).collect();
        let Ok(der) = STANDARD.decode(&body) else { continue };
        match der.len() {
            // PKCS #8 of an Ed25519 key: the seed ends it.
            48 => keep_bytes(&der[16..]),
            // The scalar of other kinds stands in the middle, and a public key after it.
            _ => keep_bytes(body.get(52..84).unwrap_or(&body).as_bytes()),
        }
        keep(&body[..body.len().min(84)]);
    }
}

fn keep_key_file(file: &Path) {
    if let Ok(text) = std::fs::read_to_string(file) {
        keep_key(&text);
    }
}

fn keep_configured(config: &Config) {
    let files = [&config.peering.key_file, &config.peering.cert_key_file, &config.server.tls_key_file];
    files.into_iter().flatten().for_each(|file| keep_key_file(file));
    for peer in &config.peers {
        if let Some(token) = &peer.token {
            keep(token.expose());
        }
    }
}

/// Each way in which a secret may be written, cut to what betrays it.
fn needles(secret: &[u8]) -> Vec<Vec<u8>> {
    let mut forms = vec![secret.to_vec()];
    forms.push(secret.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into_bytes());
    forms.push(secret.iter().map(|byte| format!("{byte:02X}")).collect::<String>().into_bytes());
    // Base64 of something longer has it at one of three offsets; the characters at its ends are shared.
    for offset in 0..3 {
        let padded = [&[0_u8; 3][..offset], secret].concat();
        for text in [STANDARD.encode(&padded), URL_SAFE_NO_PAD.encode(&padded)] {
            let whole = padded.len() * 8 / 6;
            let from = (offset * 8).div_ceil(6);
            forms.push(text.as_bytes()[from..whole].to_vec());
        }
    }
    let percent: String = url::form_urlencoded::byte_serialize(secret).collect();
    forms.push(percent.into_bytes());
    let ends = forms.into_iter().flat_map(|form| {
        let cut = form.len().min(ENOUGH);
        [form[..cut].to_vec(), form[form.len() - cut..].to_vec()]
    });
    let unique: HashSet<_> = ends.collect();
    unique.into_iter().collect()
}

/// What is looked for.
struct Search {
    needles: AhoCorasick,
}

impl Search {
    fn of<'a>(secrets: impl IntoIterator<Item = &'a Vec<u8>>) -> Self {
        let needles: HashSet<_> = secrets.into_iter().flat_map(|secret| needles(secret)).collect();
        Search { needles: AhoCorasick::new(needles).expect("a search") }
    }

    /// What is around the first secret in these bytes.
    fn find(&self, bytes: &[u8]) -> Option<String> {
        let found = self.needles.find(bytes)?;
        let around = found.start().saturating_sub(80)..(found.end() + 20).min(bytes.len());
        Some(String::from_utf8_lossy(&bytes[around]).escape_debug().to_string())
    }
}

/// Watches what is written from now on, and below some paths at any time.
pub(crate) struct Watch {
    paths: Vec<PathBuf>,
    /// Where its part of `written` and of `read` begins.
    since: (usize, usize),
}

impl Watch {
    /// Begins to watch. Directories of private keys hold what they are for, and are left out.
    pub(crate) fn over(paths: Vec<PathBuf>) -> Self {
        listen();
        let since = with_ledger(|ledger| {
            ledger.watches += 1;
            (ledger.written.len(), ledger.read.len())
        });
        Watch { paths, since }
    }

    /// Learns what this gateway is configured with.
    pub(crate) fn learn(&self, config: &Config) {
        keep_configured(config);
    }

    /// What this process has logged and counted since the watch began.
    pub(crate) fn written(&self) -> String {
        with_ledger(|ledger| ledger.written[self.since.0..].to_owned())
    }

    /// What the clients of this process have read since the watch began.
    pub(crate) fn read(&self) -> String {
        with_ledger(|ledger| ledger.read[self.since.1..].to_owned())
    }

    /// Every file below the paths, but for those of private keys, which are learnt instead.
    pub(crate) fn files(&self) -> Vec<(String, Vec<u8>)> {
        let mut found = Vec::new();
        self.paths.iter().for_each(|path| files(path, &mut found));
        found
    }

    /// Where a secret is, and what stands around it.
    pub(crate) fn findings(&self) -> Vec<String> {
        let files = self.files(); // first: keys are learnt there
        let search = with_ledger(|ledger| Search::of(&ledger.secrets));
        self.found_by(&search, &files)
    }

    /// Where this one is.
    pub(crate) fn findings_of(&self, secret: &str) -> Vec<String> {
        self.found_by(&Search::of([&secret.as_bytes().to_vec()]), &self.files())
    }

    fn found_by(&self, search: &Search, files: &[(String, Vec<u8>)]) -> Vec<String> {
        let (written, read) = (self.written(), self.read());
        let stored = files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
        let told = [("what was logged or counted", written.as_bytes()), ("what was read", read.as_bytes())];
        let all = stored.chain(told);
        all.filter_map(|(name, bytes)| Some(format!("a secret is in {name}: {}", search.find(bytes)?)))
            .collect()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let findings = if std::thread::panicking() { Vec::new() } else { self.findings() };
        with_ledger(|ledger| {
            ledger.watches -= 1;
            if ledger.watches == 0 {
                ledger.written.clear();
                ledger.read.clear();
            }
        });
        assert!(findings.is_empty(), "{}", findings.join("\n"));
    }
}

fn files(path: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    let Ok(entries) = std::fs::read_dir(path) else {
        // What is no file has no bytes, and what is gone by now shows none.
        found.extend(std::fs::read(path).ok().map(|bytes| (path.display().to_string(), bytes)));
        return;
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.file_name().is_some_and(|name| name == KEY_DIR) {
            let keys = std::fs::read_dir(&path).into_iter().flatten().flatten();
            keys.for_each(|key| keep_key_file(&key.path()));
        } else {
            files(&path, found);
        }
    }
}

/// Hears everything that any gateway of this process logs, at every level, and its libraries from INFO on.
fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let heard = filter_fn(|of| of.target().starts_with("causeway") || *of.level() <= Level::INFO);
        let subscriber = tracing_subscriber::registry().with(Capture.with_filter(heard));
        tracing::subscriber::set_global_default(subscriber).expect("the one subscriber of this process");
    });
}

struct Capture;

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = write!(self.0, " {}={value:?}", field.name());
    }
}

impl<S: Subscriber> Layer<S> for Capture {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line(format!("{} {}", event.metadata().level(), event.metadata().target()));
        event.record(&mut line);
        say(&(line.0 + "\n"));
    }

    fn on_new_span(&self, attributes: &span::Attributes<'_>, _: &span::Id, _: Context<'_, S>) {
        let mut line = Line("span".to_owned());
        attributes.record(&mut line);
        say(&(line.0 + "\n"));
    }

    fn on_record(&self, _: &span::Id, values: &span::Record<'_>, _: Context<'_, S>) {
        let mut line = Line("span".to_owned());
        values.record(&mut line);
        say(&(line.0 + "\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_whose_secret_looks_like_the_beginning_of_another_is_one_word() {
        let token = format!("cw_{}_{}cw_{}", "a".repeat(12), "b".repeat(15), "c".repeat(25));
        let text = format!("{{\"token\":\"{token}\"}}");
        assert_eq!(minted(&text), HashSet::from([token.as_str()]));
    }

    #[test]
    fn a_secret_is_found_in_every_form_it_may_be_written_in() {
        let secret = b"s3cret/of+\xffforty bytes, as random as any".to_vec();
        let search = Search::of([&secret]);
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let percent: String = url::form_urlencoded::byte_serialize(&secret).collect();
        let mut written =
            vec![secret.clone(), hex.to_uppercase().into_bytes(), hex.into_bytes(), percent.into_bytes()];
        for before in ["", "u", "us", "user:"] {
            let text = [before.as_bytes(), &secret, b" and more"].concat();
            written.push(STANDARD.encode(&text).into_bytes());
            written.push(URL_SAFE_NO_PAD.encode(&text).into_bytes());
        }
        written.push(secret[..ENOUGH].to_vec());
        written.push(secret[secret.len() - ENOUGH..].to_vec());
        for form in written {
            let line = [b"INFO x=", form.as_slice(), b"\n"].concat();
            assert!(search.find(&line).is_some(), "{}", String::from_utf8_lossy(&form));
        }
        assert_eq!(search.find(b"INFO nothing of the kind"), None);
    }

    #[test]
    fn what_makes_a_credential_one_is_told_from_what_is_public() {
        let token = ApiToken::mint(&[7; 40]);
        let part = secret_part(token.expose());
        assert!(!part.contains(token.id().as_str()) && part.len() == 43, "{part}");
        assert_eq!(secret_part("eyJhbGciOiJFZERTQSJ9.e30.c2ln"), "c2ln");
        assert_eq!(secret_part("anything else"), "anything else");
    }
}
