//! The command line as a user meets it: the real binary, its output, and its exit codes.

mod bench;
mod demo;
mod operators;
mod orchestrator;
mod runs;
mod serve;

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::support::ears::{Ear, plain_client, read};
use crate::support::secrets::{self, Watch};

/// How long a child may take for what takes it a moment.
const PATIENCE: Duration = Duration::from_secs(60);
/// Events of one run of the built-in orchestrator.
const EVENTS: u64 = 14;

/// `causeway` with these arguments and an environment of nothing else.
fn causeway(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_causeway"));
    command.args(arguments).env_clear().stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn run(command: &mut Command) -> Output {
    tokio::time::timeout(PATIENCE, command.output()).await.expect("it ends in time").expect("it runs")
}

async fn causeway_says(arguments: &[&str]) -> (i32, String, String) {
    told(&run(&mut causeway(arguments)).await)
}

fn told(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    secrets::read(&out);
    secrets::read(&err);
    (output.status.code().expect("an exit code"), out, err)
}

/// The lines of a child's output as they come, each of them heard.
struct HeardLines {
    lines: Lines<BufReader<ChildStdout>>,
    ear: Ear,
}

impl HeardLines {
    /// Takes the child's piped output.
    fn of(child: &mut Child) -> Self {
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        HeardLines { lines, ear: Ear::default() }
    }

    async fn next(&mut self) -> Option<String> {
        let line = self.lines.next_line().await.expect("UTF-8")?;
        self.ear.hear(line.as_bytes());
        self.ear.hear(b"\n");
        Some(line)
    }
}

async fn signal(child: &Child, name: &str) {
    let pid = child.id().expect("it runs");
    // Every shell has a `kill`; not every machine has the program.
    let killed =
        Command::new("sh").args(["-c", &format!("kill {name} {pid}")]).status().await.expect("sh runs");
    assert!(killed.success());
}

async fn exit_code(mut child: Child) -> i32 {
    let status =
        tokio::time::timeout(PATIENCE, child.wait()).await.expect("it ends in time").expect("a status");
    status.code().expect("an exit code")
}

/// A child that serves, and where; its log and its data are searched for secrets in the end.
struct Served {
    child: Child,
    url: String,
    _watch: Watch,
}

impl Served {
    /// Starts `causeway …` and waits until `log` names the URL behind `marker`.
    async fn start(arguments: &[&str], log: &Path, marker: &str) -> Self {
        Self::start_under(&[], arguments, log, marker).await
    }

    /// The same, under these variables.
    async fn start_under(variables: &[(&str, &str)], arguments: &[&str], log: &Path, marker: &str) -> Self {
        let file = std::fs::File::create(log).expect("a log file");
        let again = file.try_clone().expect("the same file");
        let data = arguments.iter().skip_while(|argument| **argument != "--data-dir").nth(1);
        let watch = Watch::over([log.to_owned()].into_iter().chain(data.map(PathBuf::from)).collect());
        let mut command = causeway(arguments);
        let command = command.envs(variables.iter().copied()).stdout(file).stderr(again);
        let child = command.spawn().expect("it starts");
        let url = async {
            loop {
                let text = std::fs::read_to_string(log).expect("the log");
                let url = text.split_once(marker).map(|(_, rest)| rest);
                if let Some(end) = url.and_then(|url| url.find(['"', '\n', ' '])) {
                    return url.expect("found")[..end].to_owned();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let url = tokio::time::timeout(PATIENCE, url).await.unwrap_or_else(|_| {
            panic!("{marker} never came: {}", std::fs::read_to_string(log).unwrap_or_default())
        });
        Served { child, url, _watch: watch }
    }
}

/// A gateway and an orchestrator, both of them children.
struct Site {
    directory: TempDir,
    orchestrator: Served,
    gateway: Served,
}

impl Site {
    async fn start(run_time: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let orchestrator = Served::start(
            &["orchestrator", "--listen", "127.0.0.1:0", "--run-time", run_time],
            &directory.path().join("orchestrator.log"),
            "orchestrator: ",
        )
        .await;
        let config = format!(
            "[gateway]\ndefault_tenant = \"tnt_demo\"\n\n[reader]\nbackoff = \"20ms\"\n\n\
             [[peers]]\npeer_id = \"orc\"\nbase_url = \"{}\"\nlocal = true\n",
            orchestrator.url
        );
        std::fs::write(directory.path().join("causeway.toml"), config).expect("a configuration");
        let gateway = Self::serve(directory.path(), "data", "127.0.0.1:0").await;
        Site { directory, orchestrator, gateway }
    }

    async fn serve(directory: &Path, data: &str, listen: &str) -> Served {
        let (config, data) = (directory.join("causeway.toml"), directory.join(data));
        let arguments = ["serve", "--listen", listen, "--config", text(&config), "--data-dir", text(&data)];
        Served::start(&arguments, &directory.join("gateway.log"), "ready on ").await
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A command against the gateway.
    async fn ask(&self, arguments: &[&str]) -> (i32, String, String) {
        causeway_says(&[arguments, &["--url", &self.gateway.url]].concat()).await
    }

    /// Creates a run with `causeway forward`.
    async fn forward(&self, more: &[&str]) -> String {
        let common = ["forward", "--to", "orc", "--agent", "agt_demo", "--text", "hello there", "--json"];
        let (code, out, err) = self.ask(&[&common, more].concat()).await;
        assert_eq!(code, 0, "{err}");
        let answer: Value = serde_json::from_str(&out).expect("JSON");
        answer["forwarded"]["run_id"].as_str().expect("a run").to_owned()
    }

    async fn post(&self, path: &str, body: &Value) -> Value {
        post(&format!("{}{path}", self.gateway.url), body.to_string()).await
    }
}

async fn post(url: &str, body: String) -> Value {
    let request = plain_client().post(url).header("content-type", "application/json").body(body);
    read(request.send().await.expect("an answer")).await.json
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of text")
}

/// The sequences of the events in `--json` output.
fn sequences(lines: &str) -> Vec<u64> {
    let line = |line: &str| serde_json::from_str::<Value>(line).expect("JSON");
    lines.lines().filter_map(|text| line(text)["event"]["sequence"].as_u64()).collect()
}
